"""DBSCAN of which only clusters are kept that a slightly larger and a slightly smaller radius find too."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nearfar.clustering.jaccard import Pairs


class Paced(NamedTuple):
    """label: N, int64, the cluster of each row, with numbers of their own for rows that are alone; there are gaps.

    threshold: of independence, for the next time; below 0 while there were no clusters.
    """

    label: Tensor
    threshold: float


def self_paced(
    distance: Pairs, *, eps: float = 0.6, gap: float = 0.02, least: int = 4, threshold: float = -1.0
) -> Paced:
    """Clusters that are independent of their neighbors, and of those the compact part.

    With the cluster I(i) of a row, and those that DBSCAN gives with eps + gap and with eps - gap,

        lack of independence = 1 - |I(i) & loose(i)| / |I(i) | loose(i)|
        lack of compactness  = 1 - |I(i) & tight(i)| / |I(i) | tight(i)|

    A row stays in its cluster if the least lack of independence in it is at most the threshold, and the row's own lack
    of compactness is the least of the cluster; else it stands alone. The threshold is that which nine clusters in ten
    meet; where it is below 0, it is fixed by these clusters.

    distance: of all pairs up to eps + gap.  least: rows within eps, itself counted, that make a row the core of a
    cluster. Ge et al. 2020, arXiv 2006.02713; where the least lacks are those of the released code.
    """
    label = dbscan(distance, eps, least)
    dependence = 1 - agreement(label, dbscan(distance, eps + gap, least))
    looseness = 1 - agreement(label, dbscan(distance, eps - gap, least))
    size = torch.bincount(label)
    least_dependence, least_looseness = (
        torch.ones(len(size)).scatter_reduce_(0, label, lack, "amin") for lack in (dependence, looseness)
    )
    several = least_dependence[size > 1].sort().values
    if threshold < 0 and len(several):
        threshold = float(several[min(round(0.9 * len(several)), len(several) - 1)])
    if threshold < 0:
        return Paced(label, threshold)
    stays = (least_dependence <= threshold)[label] & (looseness <= least_looseness[label])
    return Paced(torch.where(stays, label, len(size) + torch.arange(len(label))), threshold)


def dbscan(distance: Pairs, eps: float, least: int) -> Tensor:
    """The cluster of each row, from 0: N, int64. Noise comes after the clusters, each with a number of its own."""
    # Not at the top: training that does not cluster starts without these.
    from scipy.sparse import csr_matrix
    from sklearn.cluster import DBSCAN
    from sklearn.neighbors import sort_graph_by_row_values

    n = distance.size
    cells = distance.i.cpu().numpy(), distance.j.cpu().numpy()
    graph = csr_matrix((distance.distance.cpu().double().numpy(), cells), (n, n))
    # What is stored counts as near, be it 0: SciPy keeps zeros.
    graph = sort_graph_by_row_values(graph, copy=False, warn_when_not_sorted=False)
    label = torch.from_numpy(DBSCAN(eps=eps, min_samples=least, metric="precomputed").fit(graph).labels_).long()
    return torch.where(label < 0, label.max() + 1 + torch.arange(n), label)


def agreement(a: Tensor, b: Tensor) -> Tensor:
    """The overlap of each row's cluster in one clustering with its cluster in another, in parts of their union: N."""
    both = torch.unique(a * (b.max() + 1) + b, return_inverse=True, return_counts=True)
    common = both[2][both[1]]
    return common / (torch.bincount(a)[a] + torch.bincount(b)[b] - common)
