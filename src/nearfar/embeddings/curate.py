"""A balanced part of the data to train on: semantic de-duplication, then an even draw from hierarchical clusters."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nearfar.clustering.hierarchy import balanced, hierarchical
from nearfar.clustering.kmeans import kmeans
from nearfar.embeddings.duplicates import ROUNDING
from nearfar.errors import UserError

PART = 4096
"""Rows of a cluster that are compared with its other rows at a time."""


@dataclass(frozen=True)
class Curated:
    """What was chosen. kept: positions, sorted.  duplicates: how many rows were left out as copies.
    before, after: the rows of each lowest cluster, without those copies, and those that are kept: K each.
    counts: the clusters of each level."""

    kept: Tensor
    duplicates: int
    before: Tensor
    after: Tensor
    counts: list[int]


def level_counts(rows: int) -> list[int]:
    """The clusters of each level, where none are asked for: 4 times the root of the rows, or an eighth of few rows, and
    a tenth of that above, down to 5."""
    counts = [max(1, min(rows // 8, round(4 * math.sqrt(rows))))]
    while counts[-1] >= 50:
        counts.append(counts[-1] // 10)
    return counts


def curate(
    unit: Tensor, keep: int, *, dedup: float | None = None, counts: list[int] | None = None, seed: int = 0
) -> Curated:
    """Choose `keep` of N rows, evenly over what the data hold (arXiv 2405.15613).

    unit: N x D, of unit length.  dedup: a cosine above which of two rows of a cluster one is left out first.
    counts: the clusters of each level, from the rows up.
    Raises ValueError where fewer rows than `keep` are there, or left.
    """
    if not 0 < keep <= len(unit):
        raise UserError(f"--keep {keep}: there are {len(unit):,} samples to choose from; wanted 1 to {len(unit):,}")
    rows = torch.arange(len(unit))
    if dedup is not None:
        rows = distinct(unit, dedup, clusters=(counts or level_counts(len(unit)))[0], seed=seed)
        if len(rows) < keep:
            raise UserError(
                f"--keep {keep}: --dedup {dedup:g} leaves {len(rows):,} of {len(unit):,} samples: keep fewer, or raise "
                "the threshold"
            )
    chosen = counts or level_counts(len(rows))
    levels = hierarchical(unit[rows], chosen, seed=seed)
    kept = balanced(levels, keep, seed=seed)
    lowest = levels[0].assigned
    before, after = (torch.bincount(part, minlength=chosen[0]) for part in (lowest, lowest[kept]))
    return Curated(rows[kept], len(unit) - len(rows), before, after, chosen)


def distinct(unit: Tensor, threshold: float, *, clusters: int, seed: int = 0) -> Tensor:
    """The rows that are left when of those of a cluster that are more alike than `threshold` one stays: sorted.

    SemDeDup (Abbas et al. 2023, arXiv 2303.09540): rows are compared within clusters of k-means; those farthest from
    the centroid come first, and a row goes where one before it is as similar.
    """
    found = kmeans(unit, min(clusters, len(unit)), seed=seed)
    stays = torch.ones(len(unit), dtype=torch.bool)
    for cluster in range(len(found.centroids)):
        members = (found.assigned == cluster).nonzero()[:, 0]
        members = members[found.distance[members].argsort(descending=True, stable=True)]
        own = unit[members]
        for part in torch.arange(len(members)).split(PART):
            cosine = own[part] @ own[: int(part[-1]) + 1].T
            cosine.masked_fill_(torch.arange(cosine.shape[1]) >= part[:, None], -1)
            stays[members[part[cosine.amax(1) >= threshold - ROUNDING]]] = False
    return stays.nonzero()[:, 0]


def evenness(sizes: Tensor) -> float:
    """How many clusters of one size would be as even: exp of the entropy of the shares."""
    share = sizes[sizes > 0].double() / sizes.sum()
    return float((-(share * share.log()).sum()).exp())
