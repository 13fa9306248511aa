"""Holds a loss on several ranks to the same loss on one: value, and the gradient that DDP would take."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nearfar import distributed
from tests.two_ranks import Pool

Loss = Callable[..., Tensor]
"""loss(*rows): each argument has N rows, of which a rank gets its part; float ones are embeddings."""


def _step(loss: Loss, arguments: list[Tensor], weight: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Value, gradient to a shared weight, and gradient to the rows of this rank."""
    weight = weight.clone().requires_grad_()
    mine = [distributed.local(x).clone() for x in arguments]
    for x in mine:
        x.requires_grad_(x.is_floating_point())
    inputs = [x @ weight if x.is_floating_point() else x for x in mine]
    value = loss(*inputs)
    gradients = torch.autograd.grad(value, [weight, *(x for x in mine if x.is_floating_point())])
    return value.detach(), gradients[0], list(gradients[1:])


def hold_ranks_to_one(
    pool: Pool, loss: Loss, *arguments: Tensor, dtypes: Sequence[torch.dtype] = (torch.float64, torch.float32)
) -> None:
    """In float64 to 1e-10 and in float32 to 1e-5, relative to the largest number."""
    for dtype in dtypes:
        tolerance = 1e-10 if dtype == torch.float64 else 1e-5
        these = [x.to(dtype) if x.is_floating_point() else x for x in arguments]
        width = next(x.shape[1] for x in these if x.is_floating_point())
        weight = torch.eye(width, dtype=dtype) + 0.1 * torch.linspace(-1, 1, width**2, dtype=dtype).view(width, width)
        value, shared, rows = _step(loss, these, weight)
        ranks = pool.run(_step, loss, these, weight)
        _close(torch.stack([r[0] for r in ranks]).mean(), value, tolerance)
        _close(torch.stack([r[1] for r in ranks]).mean(0), shared, tolerance)
        for part, want in enumerate(rows):
            _close(torch.cat([r[2][part] for r in ranks]) / pool.ranks, want, tolerance)


def _close(got: Tensor, want: Tensor, tolerance: float) -> None:
    scale = max(float(want.abs().max()), 1e-3)
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance * scale)


def unit(n: int, d: int, seed: int) -> Tensor:
    """N rows of unit length, float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(n, d, generator=generator, dtype=torch.float64), dim=1)
