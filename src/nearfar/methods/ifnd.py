from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from nearfar.batch import MISSING, Batch
from nearfar.clustering.confidence import confidence
from nearfar.clustering.kmeans import kmeans
from nearfar.distributed import gather
from nearfar.losses.false_negatives import detected, detection, info_nce_found
from nearfar.method import Encoder, Look, Step
from nearfar.methods.moco import MoCo
from nearfar.ranges import PositiveInt, UnitInterval


class IFND(MoCo):
    """Removes from MoCo's negatives, in growing numbers, the keys of the query's own cluster.

    Before each epoch the momentum embeddings of all samples are clustered. Only the most confident samples are
    accepted, a share that grows. Accepted keys of the query's cluster, and older keys of its own sample, are its false
    negatives F_i:

        eliminate:  -s_i + log(exp(s_i) + sum_{j not in F_i} exp(s_ij))
        attract:    the mean of that over the own key and F_i, each in the place of s_i

    Use it when MoCo's queue holds many keys of the query's class. A step costs MoCo's loss once for each granularity;
    an epoch costs one pass over all samples and the clusterings. With labels, the log reports `precision` and `recall`
    of F_i.
    Note: No code was at hand, so these are unverified: confidence is a softmax over centroids, acceptance grows
    linearly from 0, clusters are made anew each epoch, granularities are averaged, and their number is PCL's.

    Args:
        treatment: Treatment of false negatives: "eliminate", which the paper finds more stable, or "attract".
        clusters: Clusters of the first clustering; each further one has twice as many, at most one for ten samples.
        granularities: Number of clusterings.
        acceptance: Share of the samples that is accepted at the end of training.

    Chen et al. 2021, "Incremental False Negative Detection for Contrastive Learning", arXiv 2106.03719.
    """

    title = "IFND: Incremental False Negative Detection (Chen et al. 2021)"
    family = "negative weighting and selection"
    label: Tensor
    keys: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        samples: int,
        classes: int,
        treatment: Literal["eliminate", "attract"] = "eliminate",
        clusters: PositiveInt = 25000,
        granularities: PositiveInt = 3,
        acceptance: UnitInterval = 1.0,
        **moco: Any,
    ) -> None:
        super().__init__(encoder, **moco)
        self.sizes = [min(clusters * 2**m, -(-samples // 10)) for m in range(granularities)]
        self.register_buffer("label", torch.full((granularities, samples), MISSING))  # clusters of the accepted
        self.register_buffer("keys", torch.full((2, len(self.queue.group)), MISSING))  # sample, and class for the log
        self.attract, self.labeled, self.acceptance = treatment == "attract", classes > 0, acceptance

    def before_epoch(self, look: Look) -> None:
        accepted = round(self.acceptance * self.clock.progress * self.label.shape[1])
        if not accepted:
            return
        x = look(self.slow_rows)  # samples x dim
        for m, size in enumerate(self.sizes):
            clusters = kmeans(x, size, seed=m)
            sure = confidence(x, clusters, self.temperature).topk(accepted).indices
            self.label[m] = torch.full_like(clusters.assigned, MISSING).index_copy(0, sure, clusters.assigned[sure])

    def alike(self, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        """For each granularity, ids of queries and keys, N and K: the cluster if accepted, else the sample's own id."""
        index = torch.cat([batch.index, self.keys[0]])
        label = self.label[:, index.clamp(min=0)]  # granularities x N+K
        ids = torch.where(label < 0, self.label.shape[1] + index, label).masked_fill(index < 0, MISSING)
        return list(zip(ids[:, : len(batch)], ids[:, len(batch) :], strict=True))

    def loss(self, q: Tensor, k: Tensor, batch: Batch) -> Tensor:
        loss = partial(info_nce_found, temperature=self.temperature, attract=self.attract, groups=self.groups(batch))
        return torch.stack([loss(q, k, self.queue.keys, ids) for ids in self.alike(batch)]).mean()

    def forward(self, batch: Batch) -> Step:
        out = super().forward(batch)
        if self.labeled:
            counts = [detected(ids, (batch.label, self.keys[1])) for ids in self.alike(batch)]
            out.log |= detection(torch.stack(counts).sum(0))
        return out

    def after_step(self, step: Step) -> None:
        views, batch = step.carry
        super().after_step(step)
        seen = gather(torch.stack([batch.index, batch.label], 1)).repeat(len(views), 1)[-self.keys.shape[1] :].T
        slots = self.queue.count - seen.shape[1] + torch.arange(seen.shape[1], device=seen.device)
        self.keys[:, slots % self.keys.shape[1]] = seen
