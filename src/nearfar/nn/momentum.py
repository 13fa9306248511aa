"""A slowly moving copy of a network (momentum encoder, target network)."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

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
