"""Losses that predict the assignment of one view from another. Ranks hold equally many rows, so a mean is a share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

NUMBERS = 2**18
"""Of a block of rows on a CPU: 1 MiB of float32, which stays in the cache of a core."""


def swapped_assignment(scores: list[Tensor], codes: list[Tensor], *, temperature: float | Tensor) -> Tensor:
    """Swapped prediction: every crop predicts the codes of the other crops that have one.

        L = mean over coded crops i of  1/(V-1) sum_{v != i} -sum_k codes_i,k log softmax_k(scores_v / temperature)

    scores: V crops, N x K, similarities to K prototypes; codes: for the first crops only (two in the paper), N x K,
    rows that sum to 1, without gradient (`nearfar.clustering.sinkhorn`). Equal prototypes give log K.
    Caron et al. 2020, arXiv 2006.09882.
    """
    if len(scores) < 2 or len(codes) > len(scores):
        raise ValueError(
            f"swapped_assignment wants at least 2 crops, and codes for some of them, not {len(scores)} and {len(codes)}"
        )
    loss = torch.zeros((), device=scores[0].device)
    for v, score in enumerate(scores):
        others = [code for i, code in enumerate(codes) if i != v]
        if others:
            # Linear in the target, so that one pass serves all codes.
            loss = loss + _CrossEntropy.apply(score, sum(others[1:], others[0]), temperature)
    return loss / (len(codes) * (len(scores) - 1))


class _CrossEntropy(torch.autograd.Function):
    """Cross-entropy of score / temperature with soft targets, in blocks of rows; the gradient is made along with it.

    Of the matrices between scores and loss, N x K each, none is ever whole. Differentiable once.
    """

    @staticmethod
    def forward(ctx: Any, score: Tensor, target: Tensor, temperature: float | Tensor) -> Tensor:
        count, columns = score.shape
        step = max(1, NUMBERS // max(1, columns)) if score.device.type == "cpu" else max(1, count)
        gradient = torch.empty_like(score, dtype=torch.promote_types(score.dtype, torch.float32))
        loss = gradient.new_zeros(())
        for some, c, p in zip(score.split(step), target.split(step), gradient.split(step), strict=True):
            x = some.to(p.dtype) / temperature  # n x K
            torch.softmax(x, 1, out=p)
            far = x.amax(1) - p.amax(1).log()  # n, log sum exp x
            mass = c.sum(1)
            loss += torch.dot(far, mass) - x.mul_(c).sum()
            p.mul_(mass[:, None]).sub_(c)
        ctx.save_for_backward(score, gradient)
        ctx.temperature = temperature.detach() if isinstance(temperature, Tensor) else temperature
        return loss / count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        score, gradient = ctx.saved_tensors
        scale = grads[0] / (len(score) * ctx.temperature)
        slope = -(gradient * score).sum() * scale / ctx.temperature if ctx.needs_input_grad[2] else None
        return (gradient * scale).to(score.dtype), None, slope
