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


class PCL(MoCo):
    """Each query finds its key in a queue, and the centroid of its cluster among centroids, at several granularities.

    Before each epoch the slow copy's embeddings of all samples are clustered (E-step); then MoCo learns, and pulls each
    query to its centroid besides (M-step). A tight cluster has a small concentration phi, and so a sharper contrast:

        loss = InfoNCE + mean over clusterings of  far_i - near_i
        near_i = q_i . c_s(i) / phi_s(i)        far_i = log sum_{c in P} exp(q_i . c / phi_c)

    Use it when classes are many and images of one class look alike. A step costs what MoCo's does; each epoch costs
    one pass over all samples, and the clusterings besides.

    Centroids and concentrations are those of the released code, which the paper leaves open in part. Where no cluster
    has any spread, phi is the temperature.

    queue: number of negatives, of the queue and, beside the clusters of the batch, of each clustering.
    temperature: of the instance part, and the mean of phi; 0.2, and 0.1 in version 1 (unverified).
    clusters: of the first clustering; each further one has twice as many, at most one for ten samples.
    granularities: number of clusterings; without one this is MoCo.  start: epochs of MoCo alone at first.
    restarts: tries of k-means, the best of which counts.  repeat: let the centroid of several samples of the batch
    count once for each of them, as in the released code.

    Li et al. 2020, "Prototypical Contrastive Learning of Unsupervised Representations", arXiv 2005.04966.
    """

    family = "clusters"
    centroids: Tensor
    phi: Tensor
    cluster: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        samples: int,
        queue: int = 16384,
        clusters: int = 25000,
        granularities: int = 3,
        start: int = 20,
        restarts: int = 5,
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
        """Of each granularity the centroids, K x dim, their concentrations, K, and the cluster of each sample."""
        return list(zip(self.centroids.split(self.sizes), self.phi.split(self.sizes), self.cluster, strict=True))

    def before_epoch(self, look: Look) -> None:
        if self.clock.epoch < self.start or not self.sizes:
            return
        x = look(self.slow_rows)  # samples x dim
        for m, (centroids, phi, cluster) in enumerate(self.clusterings()):
            tries = [kmeans(x, len(phi), seed=m * self.restarts + t) for t in range(self.restarts)]
            found = min(tries, key=lambda clusters: float(clusters.distance.square().sum()))
            centroids.copy_(normalize(found.centroids))
            phi.copy_(concentration(found, self.temperature))
            cluster.copy_(found.assigned)

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

    def chance(self, batch: int) -> float | None:
        return super().chance(batch) if self.clock.epoch < self.start or not self.sizes else None
