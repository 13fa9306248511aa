"""Losses on the correlations of features. With W ranks, statistics are those of the global batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.distributed import gather, total, world


def barlow(z1: Tensor, z2: Tensor, *, lam: float = 0.005) -> Tensor:
    """Barlow Twins: the cross-correlation C of the features of two views is drawn to the identity.

        loss = sum_i (C_ii - 1)^2 + lam sum_{i != j} C_ij^2

    z1, z2: N x D, of any length. Where D exceeds the global batch, C is never built: |C|^2 = <Z1 Z1', Z2 Z2'>.
    The sum over features, as in the released code (lam 0.0051; 0.005 in the paper). Constant features give loss D.
    Zbontar et al. 2021, arXiv 2103.03230.
    """
    rows = world() * len(z1)
    if rows < 2:
        raise ValueError("barlow wants at least 2 rows, for it divides by their variance; got 1")
    with torch.autocast(z1.device.type, enabled=False):
        z1, z2 = standardize(z1), standardize(z2)  # N x D
        diagonal = total((z1 * z2).sum(0)) / rows  # D
        if z1.shape[1] <= rows:
            square = (total(z1.T @ z2) / rows).square().sum()
        else:
            grams = (z1 @ gather(z1).T) * (z2 @ gather(z2).T)  # N x WN
            square = total(grams.sum()) / rows**2
    return (diagonal - 1).square().sum() + lam * (square - diagonal.square().sum())


def standardize(z: Tensor, *, eps: float = 1e-5) -> Tensor:
    """Mean 0 and (biased) variance 1 for each feature over the rows of all ranks, in at least float32: N x D."""
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    if world() == 1 and len(z) > 1:
        return F.batch_norm(z, None, None, training=True, eps=eps)  # the same, in a third of the time
    rows = world() * len(z)
    z = z - total(z.sum(0)) / rows
    return z * (total(z.square().sum(0)) / rows + eps).rsqrt()
