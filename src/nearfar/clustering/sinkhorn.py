"""Sinkhorn: soft assignments that use every prototype equally."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.distributed import highest, total


@torch.no_grad()
def sinkhorn(scores: Tensor, *, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Codes from scores: in turn, prototypes get equal mass and samples get mass 1. N x K, float32, without gradient.

    scores: N x K, the rows of this rank; the balance is over all ranks. The last step is that of the samples, so each
    row sums to 1 while prototypes are only nearly balanced. Exact for scores of any size, as all is done in logarithms.
    Cuturi 2013, arXiv 1306.0895; Caron et al. 2020, arXiv 2006.09882.
    """
    logits = scores.to(torch.promote_types(scores.dtype, torch.float32)) / epsilon
    for _ in range(iterations):
        top = highest(logits.amax(0))  # K
        logits = logits - top - total((logits - top).exp().sum(0)).log()
        logits = logits.log_softmax(1)
    return logits.exp()
