"""Local learning: losses of parts of a network, whose gradients need not wait for one another."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from nearfar.precision import in_float16

More = TypeVar("More")


def at_once(compute: Callable[[], tuple[Tensor, More]], parameters: Iterable[nn.Parameter]) -> tuple[Tensor, More]:
    """A loss whose gradients were taken and whose graph is gone; and what else `compute` gives.

    compute: () -> (the loss, something without gradient).  parameters: all that the loss is to train.
    In the backward pass the gradients are handed over, times the gradient of the loss, so that sums of losses, scaled
    losses and hooks are as ever. Of several losses, memory holds one graph at a time, and the gradients of all.
    In float16 graphs stay, as gradients would vanish without the scale, which is known in the backward pass alone.
    """
    loss, more = compute()
    if in_float16() or not loss.requires_grad:
        return loss, more
    trained = [p for p in parameters if p.requires_grad]
    gradients = torch.autograd.grad(loss, trained)
    return _HandedOver.apply(loss.detach(), gradients, *trained), more  # pyright: ignore[reportReturnType]


class _HandedOver(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: tuple[Tensor, ...], *parameters: nn.Parameter) -> Tensor:
        ctx.save_for_backward(*gradients)
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(grads[0] * gradient for gradient in ctx.saved_tensors)
