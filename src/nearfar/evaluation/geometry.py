"""The state of a representation without labels: is it spread out, or has it collapsed?"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import MISSING
from nearfar.errors import UserError
from nearfar.evaluation.protocol import finite


def alignment(a: Tensor, b: Tensor) -> float:
    """The mean squared distance of positive pairs on the unit sphere, 0 (same) to 4 (arXiv 2005.10242).

    a, b: N x D, row i of one belongs to row i of the other; they need not be normalized.
    """
    if a.shape != b.shape:
        raise UserError(
            f"shapes {tuple(a.shape)} and {tuple(b.shape)}; wanted the same N x D, one row per pair in each"
        )
    return float(
        (F.normalize(finite(a, "first"), dim=1) - F.normalize(finite(b, "second"), dim=1)).square().sum(1).mean()
    )


def found(a: Tensor, b: Tensor) -> float:
    """The share of rows whose partner is the nearest, by cosine, of all other rows of both, 0 to 1. a, b: N x D."""
    both = F.normalize(torch.cat([finite(a, "first"), finite(b, "second")]), dim=1)
    cosine = (both @ both.T).fill_diagonal_(-math.inf)
    partner = torch.arange(len(both), device=both.device).roll(len(a))
    return float((cosine.argmax(1) == partner).float().mean())


def uniformity(x: Tensor, *, chunk: int = 1024) -> float:
    """log mean exp(-2 |z_i - z_j|^2) over i != j on the unit sphere, from 0 (collapsed) to -4 (arXiv 2005.10242).

    x: N x D, N at least 2.  chunk: rows at a time; memory is chunk x N x 4 bytes.
    """
    if len(x) < 2:
        raise UserError(f"{len(x)} row has no pair; wanted at least two rows")
    z = F.normalize(finite(x, "given"), dim=1)
    total = 0.0
    for start in range(0, len(z), chunk):
        kernel = (4 * (z[start : start + chunk] @ z.T - 1)).clamp_(max=0).exp_()  # c x N; -2 |a - b|^2 = 4 (a.b - 1)
        kernel[torch.arange(len(kernel)), start + torch.arange(len(kernel))] = 0
        total += float(kernel.sum(dtype=torch.float64))
    return math.log(total / (len(z) * (len(z) - 1)))


def tolerance(x: Tensor, label: Tensor) -> float:
    """The mean cosine of two samples of one class, -1 to 1: how near the representation lets a class lie, which
    uniformity works against (Wang and Liu 2021, arXiv 2012.09740).

    x: N x D.  label: N, or MISSING: such a row takes no part.  Raises ValueError where no class has two rows.
    """
    known = label != MISSING
    z, y = F.normalize(finite(x[known], "given"), dim=1).double(), label[known].unique(return_inverse=True)[1]
    count = torch.bincount(y).double()
    pairs = float((count * (count - 1)).sum())
    if not pairs:
        raise UserError(f"no class of {len(label)} rows has two; wanted pairs of one class")
    total = z.new_zeros(len(count), z.shape[1]).index_add_(0, y, z)  # of all pairs of a class, |sum|^2 holds each twice
    return float((total.square().sum() - z.square().sum()) / pairs)


def effective_rank(x: Tensor) -> float:
    """exp of the entropy of the normalized singular values of x, N x D, 1 (collapsed) to D (Roy & Vetterli, 2007).

    Of the embeddings of a data set it is RankMe (arXiv 2210.02885), whose eps of 1e-7 only guards the logarithm.
    """
    x = finite(x, "given").double()
    gram = x.T @ x if x.shape[0] > x.shape[1] else x @ x.T
    singular = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    share = singular / singular.sum().clamp(min=torch.finfo(torch.float64).tiny)
    return float(torch.special.entr(share).sum().exp())


def spread(x: Tensor) -> float:
    """The deviation of a unit row's coordinates times sqrt(D): 0 is collapsed, 1 is spread evenly (arXiv 2011.10566).

    x: N x D.
    """
    z = F.normalize(finite(x, "given"), dim=1)
    return float(z.std(0, correction=0).mean() * z.shape[1] ** 0.5)
