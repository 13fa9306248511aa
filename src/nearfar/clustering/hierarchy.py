"""Hierarchical k-means with resampling, and samples drawn evenly from its clusters (Vo et al. 2024, arXiv 2405.15613).

k-means alone follows the density of the data: what is common gets most clusters. Here it is applied again to its own
centroids, level after level, and at each level to rows drawn in equal numbers from the clusters it found, so that
centroids come to lie evenly over what the data hold, and a draw that is even over clusters is even over concepts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.clustering.kmeans import Clusters, kmeans
from nearfar.errors import UserError


def hierarchical(
    x: Tensor, counts: list[int], *, resamples: int = 10, iterations: int = 20, seed: int = 0
) -> list[Clusters]:
    """The levels, from the rows up: the first clusters the N rows, each other one the centroids below it.

    x: N x D.  counts: the clusters of each level, falling.  resamples: how often the clusters of a level are found
    anew, among the rows nearest to each centroid, half as many of each as a cluster has on average.
    Raises ValueError for counts that do not fall, or of which the first is more than N.
    """
    if not counts or any(a <= b for a, b in zip([len(x) + 1, *counts], counts, strict=False)) or counts[-1] < 1:
        raise UserError(
            f"clusters of levels {counts} of {len(x):,} rows: numbers that fall are wanted, from {len(x):,}"
        )
    levels, items = [], x.detach().float()
    for count in counts:
        found = kmeans(items, count, iterations=iterations, seed=seed)
        per_cluster = max(1, len(items) // (2 * count))
        for turn in range(resamples):
            drawn = _nearest_of_each(found, per_cluster)
            if len(drawn) < count or per_cluster == 1:  # as few as centroids: nothing is left to be found anew
                break
            again = kmeans(items[drawn], count, iterations=iterations, seed=seed + turn + 1)
            found = _assigned(items, again.centroids)
        levels.append(found)
        items = found.centroids
    return levels


def balanced(levels: list[Clusters], keep: int, *, seed: int = 0) -> Tensor:
    """Positions of `keep` rows, as even over clusters, from the top level down, as their sizes allow: sorted.

    A cluster gives what it is asked for, or all it has; the rows of a lowest cluster are drawn at random.
    Raises ValueError where there are not so many rows.
    """
    rows = len(levels[0].assigned)
    if not 0 < keep <= rows:
        raise UserError(f"{keep:,} of {rows:,} rows are to be kept; wanted 1 to {rows:,}")
    generator = torch.Generator().manual_seed(seed)
    sizes = [torch.bincount(levels[0].assigned, minlength=len(levels[0].centroids))]
    for level in levels[1:]:
        sizes.append(torch.zeros(len(level.centroids), dtype=torch.int64).index_add_(0, level.assigned, sizes[-1]))
    wanted = _shared(sizes[-1], keep, generator)
    for level, below in zip(levels[:0:-1], sizes[-2::-1], strict=True):
        next_wanted = torch.zeros_like(below)
        for parent in wanted.nonzero()[:, 0].tolist():
            children = (level.assigned == parent).nonzero()[:, 0]
            next_wanted[children] = _shared(below[children], int(wanted[parent]), generator)
        wanted = next_wanted
    order = torch.randperm(rows, generator=generator)
    order = order[levels[0].assigned[order].argsort(stable=True)]  # cluster by cluster, at random within each
    first = sizes[0].cumsum(0) - sizes[0]
    place = torch.arange(rows) - first[levels[0].assigned[order]]
    return order[place < wanted[levels[0].assigned[order]]].sort().values


def _shared(sizes: Tensor, total: int, generator: torch.Generator) -> Tensor:
    """How many of each: the same number, or all of a smaller one; what is left over goes to some at random."""
    low, high = 0, int(sizes.max())
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if int(sizes.clamp(max=middle).sum()) <= total else (low, middle - 1)
    share = sizes.clamp(max=low)
    more = (sizes > low).nonzero()[:, 0]
    chosen = more[torch.randperm(len(more), generator=generator)[: total - int(share.sum())]]
    share[chosen] += 1
    return share


def _assigned(x: Tensor, centroids: Tensor) -> Clusters:
    nearest = [torch.cdist(some, centroids).min(1) for some in x.split(4096)]
    which = torch.cat([one.indices for one in nearest])
    return Clusters(centroids, which, torch.cat([one.values for one in nearest]))


def _nearest_of_each(clusters: Clusters, count: int) -> Tensor:
    """Positions of the rows nearest to each centroid among its own, so many at most."""
    order = clusters.distance.argsort(stable=True)
    order = order[clusters.assigned[order].argsort(stable=True)]
    size = torch.bincount(clusters.assigned, minlength=len(clusters.centroids))
    first = size.cumsum(0) - size
    place = torch.arange(len(order)) - first[clusters.assigned[order]]
    return order[place < count]
