from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.clustering.jaccard import jaccard
from nearfar.clustering.self_paced import self_paced
from nearfar.distributed import normalize
from nearfar.losses.unified import unified
from nearfar.memory.hybrid import Hybrid
from nearfar.method import Encoder, Look, Method, Step, equal_rows
from nearfar.ranges import PositiveFloat, PositiveInt, PositiveShare, UnitInterval


class SpCL(Method):
    """Contrasts samples with class centroids, reliable cluster centroids and single samples, all in one memory.

    Labeled samples are the source domain, and their classes its identities; the others are the target. The memory has a
    row for each class and each target sample. Before each epoch DBSCAN clusters target rows by Jaccard distance; only
    clusters that also exist at a larger and a smaller radius are kept, few at first. c_l is the mean row of identity l:

        loss_i = -f_i . c_l(i) / temperature + log sum_l exp(f_i . c_l / temperature)

    The means over source and target are added. Then v <- momentum v + (1 - momentum) f, normalized, row by row.

    Use it when few or none of many identities, such as people, have labels. A step costs what SimCLR's costs; each
    epoch compares all target samples, which takes seconds for ten thousand. Batches hold a few samples of each
    identity.
    Note: Left out: sampling of other cameras first, batches half of each domain, and batch norms for each domain. The
    paper uses one view of a sample; here all views count.

    Args:
        temperature: Divides the similarities; 0.05 in the paper.
        momentum: Share of a row that stays when its sample is seen.
        eps: Radius of clusters, a Jaccard distance.
        gap: Difference of the other two radii; 0 keeps all clusters.
        core: Samples within the radius that make a core of a cluster.
        k1: Neighbors that define the distance, at most a third of all samples.
        k2: Neighbors that smooth the distance.

    Ge et al. 2020, "Self-paced Contrastive Learning with Hybrid Memory for Domain Adaptive Object Re-ID",
    arXiv 2006.02713.
    """

    title = "SpCL: Self-paced Contrastive Learning with Hybrid Memory (Ge et al. 2020)"
    family = "clustering"
    sampler = "pk"
    threshold: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        samples: int,
        classes: int,
        temperature: PositiveFloat = 0.05,
        momentum: UnitInterval = 0.2,
        eps: PositiveShare = 0.6,
        gap: UnitInterval = 0.02,
        core: PositiveInt = 4,
        k1: PositiveInt = 30,
        k2: PositiveInt = 6,
    ) -> None:
        super().__init__(encoder)
        self.norm = nn.BatchNorm1d(encoder.dim)
        self.norm.bias.requires_grad_(False)
        self.memory = Hybrid(samples, classes, encoder.dim)
        self.register_buffer("threshold", torch.tensor(-1.0))  # of independence, fixed by the first clusters
        self.temperature, self.momentum, self.k1, self.k2 = temperature, momentum, k1, k2
        self.eps, self.gap, self.core = eps, gap, core

    def represent(self, *views: Any) -> Tensor:
        return normalize(self.norm(torch.cat(self.embed_all(views))))  # VN x dim

    def before_epoch(self, look: Look) -> None:
        memory = self.memory
        if not memory.seen.any():
            memory.fill(look(self.represent), look.label)
        v = memory.rows[memory.place[~memory.source]]  # target samples x dim
        if len(v) > 1:
            near = jaccard(v, k1=min(self.k1, -(-len(v) // 3)), k2=self.k2, limit=self.eps + self.gap)
            clustering = self_paced(near, eps=self.eps, gap=self.gap, least=self.core, threshold=float(self.threshold))
            memory.name(clustering.label)
            self.threshold.fill_(clustering.threshold)

    def identities(self) -> Tensor:
        return self.memory.identity[self.memory.place]  # samples

    def forward(self, batch: Batch) -> Step:
        f = self.represent(*batch.views)  # VN x dim
        return Step(self.loss(f, batch), carry=(f.chunk(len(batch.views)), batch))

    def loss(self, f: Tensor, batch: Batch) -> Tensor:
        times = len(batch.views)
        c, column, group = self.memory.prototypes()
        own, source = (known[batch.index].repeat(times) for known in (column, self.memory.source))
        groups = None if batch.group is None else (batch.group.repeat(times), group)
        return unified(f, c, own, temperature=self.temperature, source=source, groups=groups)

    def after_step(self, step: Step) -> None:
        views, batch = step.carry
        for f in views:  # one view after the other, so that the order is that of one process
            self.memory.write(batch.index, f, keep=self.momentum, group=batch.group)

    def chance(self, batch: Batch) -> Tensor:
        return self.loss(equal_rows(batch, self.encoder.dim).repeat(len(batch.views), 1), batch)
