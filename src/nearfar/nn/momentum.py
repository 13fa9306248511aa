"""A slowly moving copy of a network (momentum encoder, target network)."""

from __future__ import annotations

import copy
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def momentum_copy(module: M) -> M:
    """A copy of `module` that the optimizer never sees. Its norm layers keep statistics of their own."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def follow(target: nn.Module, source: nn.Module, momentum: float) -> None:
    """target <- momentum * target + (1 - momentum) * source, over parameters; buffers are left alone.

    momentum 1 freezes the target, 0 makes it equal to the source.
    """
    lerp = torch._foreach_lerp_  # pyright: ignore[reportPrivateImportUsage] (as torch's own optimizers use it)
    lerp(list(target.parameters()), list(source.parameters()), 1 - momentum)


class Embeds(Protocol):
    """What a pair asks of a method: `nearfar.method.Method` has it."""

    encoder: Any
    projector: Any

    def embed(self, view: Any, encoder: Any = None) -> Tensor: ...


class MomentumPair(nn.Module):
    """Slow copies of an encoder and a projector, which follow them and never learn.

    encoder: the copy; likewise projector.
    """

    def __init__(self, encoder: Any, projector: nn.Module) -> None:
        super().__init__()
        self.encoder, self.projector = momentum_copy(encoder), momentum_copy(projector)

    @torch.no_grad()
    def forward(self, method: Embeds, view: Any) -> Tensor:
        """What the pair makes of a view: N x dim. It passes through `method.embed`, which knows of micro-batches."""
        return self.projector(method.embed(view, self.encoder))

    def follow(self, method: Embeds, momentum: float) -> None:
        """Move the pair toward the encoder and the projector of `method`, after a step; momentum as in `follow`."""
        follow(self.encoder, method.encoder, momentum)
        follow(self.projector, method.projector, momentum)
