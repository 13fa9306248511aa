"""What tells known classes from new ones where only some classes have labels (Sun and Li 2022, arXiv 2208.02764)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nearfar.distributed import gather, total

LEAST = 1e-5
"""Shares below this are taken for it in logarithms, as in the released code."""


@torch.no_grad()
def unfamiliar(score: Tensor, labeled: Tensor, *, known: int, percentile: float) -> Tensor:
    """Which rows without a label look less like every known class than most labeled rows do: N, bool.

    score: N x C, with each prototype, those of the known classes first.  labeled: N, bool.  known: of how many classes
    there are labels.  A row is unfamiliar if its largest score with a known class, the C scores of the row being
    standardized, is below the (100 - percentile)th percentile of those of the labeled rows of all ranks, which is
    interpolated. Where no row is labeled, none is unfamiliar.
    """
    spread = score.std(1, correction=0, keepdim=True).clamp(min=1e-12)
    best = ((score - score.mean(1, keepdim=True)) / spread)[:, :known].amax(1)  # N
    threshold = gather(torch.where(labeled, best, torch.nan)).nanquantile(1 - percentile / 100)
    return ~labeled & (best < threshold)  # nothing is below NaN


def divergence(p: Tensor, prior: Tensor, keep: Tensor) -> Tensor:
    """How far the mean of some rows of all ranks is from a prior: KL(mean, prior), which is 0 where the two are one.

    p: N x C, rows that sum to 1; prior: C; keep: N, bool. 0 where no row is kept.
    """
    count = total(keep.sum().to(p.dtype)).clamp(min=1)
    mean = total((p * keep[:, None]).sum(0)) / count
    return (mean * (mean.clamp(min=LEAST) / prior.clamp(min=LEAST)).log()).sum()


def unlabeled_shares(samples: int, counts: Sequence[int], novel: int, ratio: float | None = None) -> Tensor:
    """The share of each class in what has no label, where all are of one size: the classes of `counts`, then new ones.

    counts: labeled samples of each known class.  ratio: the share of a known class that has labels, 0 to 1; None is
    that of the counts in `samples` samples, and 0.9 at most, as some labels may be held back.
    """
    classes = len(counts) + novel
    known = min(0.9, sum(counts) * classes / (samples * len(counts))) if ratio is None else ratio
    left = torch.cat([torch.full((len(counts),), 1 - min(known, 1 - LEAST)), torch.ones(novel)])
    return left / left.sum()
