"""Sinkhorn: soft assignments that use every prototype equally."""

from __future__ import annotations

from collections.abc import Iterator

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
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    low, top = (edge / epsilon for edge in scores.aminmax())
    low, top = -highest(-low), highest(top)
    if top - low <= SPREAD:
        mass = torch.empty_like(scores, memory_format=torch.contiguous_format)
        for some, part in _blocks(scores, mass):
            torch.div(some, epsilon, out=part).sub_(top).exp_()
        return _by_scaling(mass, iterations)
    logits = scores / epsilon
    for _ in range(iterations):
        top = highest(logits.amax(0))  # K
        logits = logits - top - total((logits - top).exp().sum(0)).log()
        logits = logits.log_softmax(1)
    return logits.exp()


def _by_scaling(mass: Tensor, iterations: int) -> Tensor:
    # The same as two vectors of factors, which pass over the matrix once an iteration and write it at the end.
    prototypes = mass.new_ones(mass.shape[1])  # K
    with torch.autocast(mass.device.type, enabled=False):
        for number in range(iterations):
            sums = torch.zeros_like(prototypes)
            for (part,) in _blocks(mass):
                samples = (part @ prototypes).reciprocal_() if number else part.new_ones(len(part))  # n
                sums.addmv_(part.T, samples)
            prototypes = total(sums).reciprocal_()
        for (part,) in _blocks(mass):
            part.mul_((part @ prototypes).reciprocal_()[:, None]).mul_(prototypes)
    return mass


def _blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Rows that stay in the cache of a core from one operation to the next; on a GPU all of them at once."""
    first = tensors[0]
    step = max(1, 2**18 // max(1, first.shape[1])) if first.device.type == "cpu" else max(1, len(first))
    return zip(*(tensor.split(step) for tensor in tensors), strict=True)
