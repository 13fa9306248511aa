from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from nearfar.batch import Batch
from nearfar.clustering.online import OnlineClusters
from nearfar.distributed import local, world
from nearfar.losses.inter_image import draw_negatives, draw_positive, margin_nce
from nearfar.memory.bank import Bank
from nearfar.method import Encoder, Look, Step
from nearfar.methods.moco import MoCo
from nearfar.ranges import NonNegativeInt, PositiveInt, Range, UnitInterval


class InterCLR(MoCo):
    """Adds to MoCo a term that pulls each query to another image of its cluster, against selected negatives.

    MoCo learns what views of one image share; the second term, what images of one cluster share. Clusters are those of
    a memory bank with a row for each sample, updated step by step:

        loss = (1 - weight) InfoNCE + weight (log(exp(s) + sum_{j chosen} exp(q . bank_j / temperature)) - s)
        s = (q . bank_p - margin) / temperature        p any of the query's cluster        chosen: of other clusters

    Use it when images of one class differ more than two views of one image do. A step costs what MoCo's costs, and a
    product of the batch with the whole bank.
    Note: Negatives are drawn without repetition, fewer where the pool holds fewer. `arc` continues in a straight line
    beyond the largest angle. Both were decided here.

    Args:
        weight: Weight of the second term.
        clusters: Number of clusters, at most one for ten samples.
        negatives: Bank negatives of a query.
        sampling: "semi-hard" (any of the `pool` most similar rows), "hard" (the most similar), "semi-easy" (any of the
            `pool` least similar) or "random".
        pool: Number of rows to draw from; a tenth of ImageNet in the paper.
        margin: Margin on the cosine with the positive; below 0 is lenient.
        arc: Apply the margin to the angle instead.
        kept: Share of a bank row that stays when its sample is seen.
        recenter: Steps between two updates of the centroids.
        least: Members below which a cluster is dissolved; at most half of the mean size.
        offline: Cluster before each epoch instead, and not in between.

    Xie et al. 2020, "Delving into Inter-Image Invariance for Unsupervised Visual Representations", arXiv 2008.11702.
    """

    title = "InterCLR: Inter-Image Invariance (Xie et al. 2020)"
    family = "clustering"

    def __init__(
        self,
        encoder: Encoder,
        *,
        samples: int,
        weight: UnitInterval = 0.25,
        clusters: PositiveInt = 10000,
        negatives: PositiveInt = 16384,
        sampling: Literal["semi-hard", "random", "hard", "semi-easy"] = "semi-hard",
        pool: PositiveInt = 128000,
        margin: Annotated[float, Range(ge=-2, le=2)] = -0.5,
        arc: bool = False,
        kept: UnitInterval = 0.0,
        recenter: PositiveInt = 10,
        least: NonNegativeInt = 20,
        offline: bool = False,
        **moco: Any,
    ) -> None:
        super().__init__(encoder, **moco)
        count, dim = min(clusters, -(-samples // 10)), self.queue.keys.shape[1]
        self.bank = Bank(samples, dim)
        self.clusters = OnlineClusters(samples, count, dim, least=min(least, samples // (2 * count)))
        self.weight, self.kept, self.recenter, self.offline = weight, kept, recenter, offline
        self.negatives: dict[str, Any] = {"count": negatives, "pool": pool, "sampling": sampling}
        self.margins: dict[str, Any] = {"margin": margin, "arc": arc}

    def before_epoch(self, look: Look) -> None:
        if self.bank.seen.all() and not self.offline:
            return
        x = look(self.slow_rows)  # samples x dim
        self.bank.rows.copy_(x)
        self.bank.seen.fill_(True)
        self.clusters.start(x)

    def loss(self, q: Tensor, k: Tensor, batch: Batch) -> Tensor:
        bank, label, draws = self.bank.rows, self.clusters.label, self.clock.generator(1)
        u = torch.rand(world() * len(q), generator=draws).to(q.device)
        same = (label[batch.index], label, *(() if batch.group is None else (batch.group, self.bank.group)))
        p = draw_positive(label[batch.index], label, local(u))
        u = torch.rand(len(bank), generator=draws).to(q)
        chosen = draw_negatives(q, bank, same, u, **self.negatives)
        inter = margin_nce(q, bank[p], bank, chosen, temperature=self.temperature, **self.margins)
        return (1 - self.weight) * super().loss(q, k, batch) + self.weight * inter

    def after_step(self, step: Step) -> None:
        super().after_step(step)
        (*_, v), batch = step.carry  # the keys of the second view
        self.bank.write(batch.index, v, keep=self.kept, group=batch.group)
        if not self.offline:
            self.clusters.assign(batch.index, self.bank.rows[batch.index])
            if (self.clock.step + 1) % self.recenter == 0:
                self.clusters.recenter(self.bank.rows)
            self.clusters.refill(self.bank.rows)

    def chance(self, batch: Batch) -> None:
        """None: chance level depends on the number of negatives."""
