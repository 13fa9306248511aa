"""Whether samples of another data set are told from those of one's own, by how far features lie from training rows.

A score is larger the stranger a sample is. In-distribution is the positive class, as papers have it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nearfar.errors import UserError
from nearfar.evaluation.knn import neighbors
from nearfar.evaluation.protocol import finite, labeled

NEAREST = 50
"""The neighbor whose distance counts, or the last of a smaller bank."""

SHRUNK = 1e-3
"""Of the mean variance, added to each variance: a direction in which training rows hardly vary would decide alone."""


def neighbor_distance(query: Tensor, bank: Tensor, k: int = NEAREST) -> Tensor:
    """The Euclidean distance, on the unit sphere, to the k-th nearest training row: Q, float64, 0 to 2.

    query: Q x D.  bank: N x D.  k: capped at N.  Sun et al. 2022, arXiv 2204.06507.
    """
    similarity = neighbors(query, bank, min(k, len(bank)))[0][:, -1].double()
    return (2 - 2 * similarity).clamp(min=0).sqrt()


def mahalanobis(query: Tensor, bank: Tensor, label: Tensor) -> Tensor:
    """The squared Mahalanobis distance to the nearest class mean: Q, float64. All classes share one covariance.

    query: Q x D.  bank: N x D.  label: N, or MISSING: such rows take no part.  Lee et al. 2018, arXiv 1807.03888.
    """
    x, y, _ = labeled(bank, label, "training")
    q, x, y = finite(query, "query").double(), x.double(), y.unique(return_inverse=True)[1]
    count = torch.bincount(y).double()
    mean = x.new_zeros(len(count), x.shape[1]).index_add_(0, y, x) / count[:, None]
    within = x - mean[y]
    covariance = within.T @ within / len(x)
    level = float(covariance.diagonal().mean())
    if not level:  # one row a class: what is left is the distance
        covariance, level = torch.eye(x.shape[1], dtype=x.dtype, device=x.device), 1.0
    covariance.diagonal().add_(SHRUNK * level)
    factor = torch.linalg.cholesky(covariance)
    q, mean = (torch.linalg.solve_triangular(factor, rows.T, upper=False).T for rows in (q, mean))
    return torch.cat([torch.cdist(part, mean).square().amin(1) for part in q.split(1024)])


def placements(inside: Tensor, outside: Tensor) -> Tensor:
    """For each sample of one's own the share of others that are stranger, and half of those as strange: n, 0 to 1.
    Its mean is the AUROC.

    inside: n scores of one's own samples; outside: m of others.
    """
    _insist_some(inside, outside)
    order, score = outside.double().sort().values, inside.double()
    above = len(order) - torch.searchsorted(order, score, right=True)
    return (above + (len(order) - torch.searchsorted(order, score))) / (2 * len(order))


def auroc(inside: Tensor, outside: Tensor) -> float:
    """How often a sample of one's own is less strange than another, ties half: 0 to 1, chance 0.5."""
    return float(placements(inside, outside).double().mean())


def fpr_at(inside: Tensor, outside: Tensor, rate: float = 0.95) -> float:
    """The share of other samples that pass where `rate` of one's own do, 0 to 1; lower is better.

    The threshold is the smallest score that lets so many of one's own pass; what equals it passes.
    """
    _insist_some(inside, outside)
    place = max(1, math.ceil(rate * len(inside) - 1e-9))  # 0.95 of 20 is 19, whatever floats make of it
    return float((outside <= inside.sort().values[place - 1]).double().mean())


def _insist_some(inside: Tensor, outside: Tensor) -> None:
    if not len(inside) or not len(outside):
        raise UserError(f"{len(inside)} scores of one's own samples and {len(outside)} of others; wanted some of both")
