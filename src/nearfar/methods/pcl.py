from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nearfar.batch import Batch
from nearfar.clustering.concentration import concentration
from nearfar.clustering.kmeans import kmeans
from nearfar.distributed import gather, normalize
from nearfar.losses.proto_nce import proto_nce
from nearfar.method import Encoder, Look
from nearfar.methods.moco import MoCo
from nearfar.ranges import NonNegativeInt, PositiveInt


class PCL(MoCo):
    """Adds to MoCo a contrast of each query with cluster centroids, at several granularities.

    Before each epoch the momentum embeddings of all samples are clustered (E-step); then MoCo's loss is trained with a
    pull to each query's centroid (M-step). A tight cluster has a small concentration phi, and so a sharper contrast:

        loss = InfoNCE + mean over clusterings of  far_i - near_i
        near_i = q_i . c_s(i) / phi_s(i)        far_i = log sum_{c in P} exp(q_i . c / phi_c)

    Use it when there are many classes whose images look alike. A step costs what MoCo's costs; each epoch adds one pass
    over all samples and the clusterings.
    Note: Centroids and concentrations follow the released code, as the paper leaves them open in part. Where no cluster
    has any spread, phi is the temperature.

    Args:
        queue: Number of negatives, in the queue and, beside the clusters of the batch, in each clustering.
        temperature: Temperature of InfoNCE, and mean of phi; 0.2, in version 1 0.1 (unverified).
        clusters: Clusters of the first clustering; each further one has twice as many, at most one for ten samples.
        granularities: Number of clusterings; 0 is MoCo.
        start: Epochs of MoCo alone at the beginning.
        restarts: Runs of k-means, of which the best counts.
        repeat: Let the centroid of several samples of a batch count once for each, as in the released code.

    Li et al. 2020, "Prototypical Contrastive Learning of Unsupervised Representations", arXiv 2005.04966.
    """

    title = "PCL: Prototypical Contrastive Learning (Li et al. 2020)"
    family = "clustering"
    centroids: Tensor
    phi: Tensor
    cluster: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        samples: int,
        queue: PositiveInt = 16384,
        clusters: PositiveInt = 25000,
        granularities: NonNegativeInt = 3,
        start: NonNegativeInt = 20,
        restarts: PositiveInt = 5,
        repeat: bool = False,
        **moco: Any,
    ) -> None:
        super().__init__(encoder, queue=queue, **moco)
        self.sizes = [min(clusters * 2**m, -(-samples // 10)) for m in range(granularities)]  # K of each clustering
        self.register_buffer("centroids", normalize(torch.randn(sum(self.sizes), self.queue.keys.shape[1])))
        self.register_buffer("phi", torch.ones(sum(self.sizes)))
        self.register_buffer("cluster", torch.zeros(granularities, samples, dtype=torch.long))
        self.negatives, self.start, self.restarts, self.repeat = queue, start, restarts, repeat

    def clusterings(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """For each granularity: centroids, K x dim, their concentrations, K, and the cluster of each sample."""
        return list(zip(self.centroids.split(self.sizes), self.phi.split(self.sizes), self.cluster, strict=True))

    def before_epoch(self, look: Look) -> None:
        if self.clock.epoch < self.start or not self.sizes:
            return
        x = look(self.slow_rows)  # samples x dim
        for m, (centroids, phi, cluster) in enumerate(self.clusterings()):
            tries = [kmeans(x, len(phi), seed=m * self.restarts + t) for t in range(self.restarts)]
            best = min(tries, key=lambda clusters: float(clusters.distance.square().sum()))
            centroids.copy_(normalize(best.centroids))
            phi.copy_(concentration(best, self.temperature))
            cluster.copy_(best.assigned)

    def loss(self, q: Tensor, k: Tensor, batch: Batch) -> Tensor:
        instance = super().loss(q, k, batch)
        if self.clock.epoch < self.start or not self.sizes:
            return instance
        parts = []
        for m, (centroids, phi, cluster) in enumerate(self.clusterings()):
            own = cluster[batch.index]  # N
            order = torch.randperm(len(phi), generator=self.clock.generator(1 + m)).to(own.device)
            others = order[~torch.isin(order, gather(own))][: self.negatives]
            parts.append(proto_nce(q, centroids, phi, own, others, repeat=self.repeat))
        return instance + torch.stack(parts).mean()
