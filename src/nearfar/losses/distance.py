"""Losses on distances between rows. With W ranks, each returns its share of the mean (see `nearfar.distributed`)."""

from __future__ import annotations

import math

from torch import Tensor

from nearfar.contrast import far
from nearfar.distributed import columns, gather, normalize, share
from nearfar.losses.negatives import group_sizes


def byol(p: Tensor, z: Tensor) -> Tensor:
    """BYOL, one direction: the mean squared distance of predictions and targets on the sphere, 2 - 2 cos(p, z), 0 to 4.

    p: N x D, predictions; z: N x D, targets, detached by the caller. Rows of any length.
    The method sums two directions. Grill et al. 2020, arXiv 2006.07733.
    """
    return share(2 - 2 * (normalize(p) * normalize(z)).sum(1))


def align(x: Tensor, y: Tensor, *, alpha: float = 2) -> Tensor:
    """Alignment: the mean of |x_i - y_i|^alpha over positive pairs.

    x, y: N x D, of unit length. With alpha < 2 the gradient of equal rows is undefined.
    Wang and Isola 2020, arXiv 2005.10242.
    """
    return share((x - y).square().sum(1).pow(alpha / 2))


def uniform(x: Tensor, *, t: float = 2, group: Tensor | None = None) -> Tensor:
    """Uniformity: log of the mean of exp(-t |x_i - x_j|^2) over the pairs i < j of all ranks; -4t to 0.

    x: N x D, of unit length: |x_i - x_j|^2 is computed as 2 - 2 x_i . x_j. group: N, int64, or MISSING; pairs of one
    group are left out, and 0 is what is left of no pair. Wang and Isola 2020, arXiv 2005.10242.
    """
    x = x * math.sqrt(2 * t)
    keys = gather(x)
    if len(keys) < 2:
        raise ValueError(f"uniform compares pairs of rows, so it wants at least 2, not {len(keys)}")
    own = columns(x)
    every = None if group is None else gather(group)
    pairs = len(keys) * (len(keys) - 1) if every is None else int((len(keys) - group_sizes(every)).sum())
    if not pairs:
        return 0 * x.sum()
    apart = None if group is None or every is None else (group, every)
    sums = gather(far(x, keys, skip=own, exclude_same=apart))  # every rank takes the logarithm of the mean over all
    return sums.logsumexp(0) - math.log(pairs) - 2 * t
