"""Sinkhorn: soft assignments that use every prototype equally."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.distributed import highest, total

SPREAD = 60.0
"""Logits that span no more than this are exponentiated as they are: no product of float32 factors overflows."""


@torch.no_grad()
def sinkhorn(scores: Tensor, *, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Codes from scores: in turn, prototypes get equal mass and samples get mass 1. N x K, float32, without gradient.

    scores: N x K, the rows of this rank; the balance is over all ranks. The last step is that of the samples, so each
    row sums to 1 while prototypes are only nearly balanced. Exact for scores of any size, as all is done in logarithms.
    Cuturi 2013, arXiv 1306.0895; Caron et al. 2020, arXiv 2006.09882.
    """
    logits = scores.to(torch.promote_types(scores.dtype, torch.float32)) / epsilon
    low, top = logits.aminmax()
    low, top = -highest(-low), highest(top)
    if top - low <= SPREAD:
        return _by_scaling(logits.sub_(top).exp_(), iterations)
    for _ in range(iterations):
        top = highest(logits.amax(0))  # K
        logits = logits - top - total((logits - top).exp().sum(0)).log()
        logits = logits.log_softmax(1)
    return logits.exp()


def _by_scaling(mass: Tensor, iterations: int) -> Tensor:
    # The same as two vectors of factors, which pass over the matrix twice an iteration and never write it.
    samples = mass.new_ones(len(mass))  # N
    prototypes = mass.new_ones(mass.shape[1])  # K
    with torch.autocast(mass.device.type, enabled=False):
        for _ in range(iterations):
            prototypes = total(mass.T @ samples).reciprocal_()
            samples = (mass @ prototypes).reciprocal_()
    return mass.mul_(prototypes).mul_(samples[:, None])
