"""Clusters of all samples that are kept up to date step by step, instead of made anew."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nearfar.clustering.kmeans import kmeans
from nearfar.distributed import gather, normalize


class OnlineClusters(nn.Module):
    """`count` clusters of `samples` rows that are kept elsewhere, the same on every rank (arXiv 2008.11702).

    A row that is seen moves to the centroid with which its product is largest; centroids are plain means, not brought
    to unit length, so that tight clusters attract more. Clusters of fewer than `least` members are taken apart.
    """

    label: Tensor  # samples, int64
    centroids: Tensor  # count x dim

    def __init__(self, samples: int, count: int, dim: int, *, least: int = 1) -> None:
        super().__init__()
        self.register_buffer("label", torch.arange(samples) % count)
        self.register_buffer("centroids", normalize(torch.randn(count, dim)))
        self.least = max(least, 1)

    @torch.no_grad()
    def start(self, rows: Tensor, *, seed: int = 0) -> None:
        """Cluster all rows: samples x dim."""
        clusters = kmeans(rows, len(self.centroids), seed=seed)
        self.label.copy_(clusters.assigned)
        self.centroids.copy_(clusters.centroids)
        self.refill(rows)

    @torch.no_grad()
    def assign(self, index: Tensor, v: Tensor) -> None:
        """Move the samples `index` (N) of every rank to the centroids that are nearest to v (N x dim)."""
        v = gather(v.detach()).to(self.centroids.dtype)
        self.label[gather(index)] = (v @ self.centroids.T).argmax(1)

    @torch.no_grad()
    def recenter(self, rows: Tensor) -> None:
        """Make each centroid the mean of its members; that of an empty cluster stays."""
        members = torch.bincount(self.label, minlength=len(self.centroids))[:, None]
        sums = torch.zeros_like(self.centroids).index_add(0, self.label, rows)
        self.centroids.copy_(torch.where(members > 0, sums / members.clamp(min=1), self.centroids))

    @torch.no_grad()
    def refill(self, rows: Tensor) -> None:
        """Small clusters give their members to the nearest of the others, and take half of the largest instead."""
        count = len(self.centroids)
        small = torch.bincount(self.label, minlength=count) < self.least
        if not small.any() or small.all():
            return
        homeless = small[self.label].nonzero()[:, 0]
        near = rows[homeless] @ self.centroids.T
        self.label[homeless] = near.masked_fill(small, float("-inf")).argmax(1)
        for empty in small.nonzero()[:, 0].tolist():
            largest = int(torch.bincount(self.label, minlength=count).argmax())
            members = (self.label == largest).nonzero()[:, 0]
            self.label[members[_half(rows[members])]] = empty
            for cluster in (largest, empty):
                self.centroids[cluster] = rows[self.label == cluster].mean(0)


def _half(rows: Tensor) -> Tensor:
    """Which rows are in the second of two clusters; where they cannot be told apart, every other one."""
    second = kmeans(rows, 2).assigned == 1
    return second if second.any() and not second.all() else torch.arange(len(rows), device=rows.device) % 2 == 1
