"""How near generated samples come to real ones, by what an encoder makes of both: Fréchet distance, precision, recall.

Numbers of two encoders, or of other numbers of samples, cannot be compared: name the encoder and the counts with them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.errors import UserError


def frechet(real: Tensor, made: Tensor) -> float:
    """The squared Fréchet distance of two Gaussians with the means and covariances of the rows (FID).

        |m1 - m2|^2 + trace(C1 + C2 - 2 (C1 C2)^(1/2))

    real, made: N x D and M x D, each 2 rows or more. Fewer rows give a larger distance, by some D / N of the trace.
    Heusel et al. 2017, arXiv 1706.08500.
    """
    if min(len(real), len(made)) < 2:
        raise UserError(f"a covariance takes 2 samples or more, and there are {len(real)} real and {len(made)} made")
    (m1, c1), (m2, c2) = _moments(real), _moments(made)
    root = _root(c1)
    # The eigenvalues of C1 C2 are those of the symmetric matrix C1^(1/2) C2 C1^(1/2).
    both = torch.linalg.eigvalsh(root @ c2 @ root).clamp(min=0).sqrt().sum()
    return float((m1 - m2).square().sum() + c1.trace() + c2.trace() - 2 * both)


def precision_recall(real: Tensor, made: Tensor, *, k: int = 3) -> tuple[float, float]:
    """How many of the made samples lie where real ones do, and of the real where made ones do: each 0 to 1.

    real, made: N x D and M x D, more than k each. A sample lies among others where it is nearer to one of these than
    the k-th nearest of its own kind is to that one.  Kynkäänniemi et al. 2019, arXiv 1904.06991.
    """
    if min(len(real), len(made)) <= k:
        raise UserError(f"k is {k}, and there are {len(real)} real and {len(made)} made samples: more are needed")
    return _among(made, real, k), _among(real, made, k)


def _moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    rows = rows.double()
    return rows.mean(0), rows.T.cov()


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


def _among(rows: Tensor, others: Tensor, k: int) -> float:
    """The share of the rows that lie in the ball of one of the others, out to its k-th nearest neighbor."""
    radius = torch.cat([torch.cdist(part, others).kthvalue(k + 1, dim=1).values for part in others.split(1024)])
    inside = [(torch.cdist(part, others) <= radius).any(1) for part in rows.split(1024)]
    return float(torch.cat(inside).double().mean())
