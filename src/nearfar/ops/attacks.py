"""Attacks: inputs changed a little, each within a ball around itself, so that a loss becomes large.

One step of the sign is FGSM (Goodfellow et al. 2014, arXiv 1412.6572), several with projection are PGD (Madry et al.
2017, arXiv 1706.06083), without a random start also called BIM. What loss is attacked is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from nearfar.precision import without_float16

Norm = Literal["linf", "l2"]


def ascend(
    loss: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    epsilon: float,
    stride: float | None = None,
    steps: int = 1,
    norm: Norm = "linf",
    start: Tensor | None = None,
    bounds: tuple[float, float] | None = None,
) -> Tensor:
    """The inputs after some steps uphill, none further than epsilon from where it was, without a graph: N x ....

        x' <- clip(x + P(x' + stride u - x)),    u = sign(g) or g / |g|_2 of each sample,    g = d loss / d x'

    loss: of N x ..., one number; its scale does not matter.  x: N x ....  epsilon: radius of the ball, in the unit of
    x.  stride: length of a step; epsilon, if none is given.  norm: of the ball, and with it u: the largest change of a
    number, or the Euclidean length of a sample's change.  start: what is added to x first.  bounds: of what numbers
    may be. P puts what has left the ball back on its nearest point.
    """
    x = x.detach()
    stride = epsilon if stride is None else stride
    at = x if start is None else _clipped(x + start, bounds)
    for _ in range(steps):
        at = at.detach().requires_grad_()
        with torch.enable_grad(), without_float16():
            (slope,) = torch.autograd.grad(loss(at), at)
        at = at.detach()
        at = _clipped(x + _within(at - x + stride * _direction(slope, norm), epsilon, norm), bounds)
    return at.detach()


def random_start(shape: Sequence[int], epsilon: float, generator: torch.Generator, *, norm: Norm = "linf") -> Tensor:
    """Changes drawn evenly from the ball of radius epsilon, on the CPU. shape: N x ...."""
    if norm == "linf":
        return epsilon * (2 * torch.rand(*shape, generator=generator) - 1)
    rows = torch.randn(*shape, generator=generator)
    radius = epsilon * torch.rand(shape[0], generator=generator) ** (1 / max(rows[0].numel(), 1))
    return rows * _per_sample(radius / _length(rows), rows)


def _direction(slope: Tensor, norm: Norm) -> Tensor:
    if norm == "linf":
        return slope.sign()
    length = _length(slope)
    return slope * _per_sample(torch.where(length > 0, 1 / length, 0), slope)


def _within(change: Tensor, epsilon: float, norm: Norm) -> Tensor:
    if norm == "linf":
        return change.clamp(-epsilon, epsilon)
    length = _length(change)
    return change * _per_sample(torch.where(length > epsilon, epsilon / length, 1), change)


def _clipped(x: Tensor, bounds: tuple[float, float] | None) -> Tensor:
    return x if bounds is None else x.clamp(*bounds)


def _length(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x.flatten(1), dim=1)  # N


def _per_sample(factor: Tensor, x: Tensor) -> Tensor:
    return factor.view(-1, *[1] * (x.dim() - 1))
