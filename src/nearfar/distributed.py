"""The few collectives of the library, with gradients that are exact on any number of processes.

The convention: the loss of a step is the mean over the rows of all ranks. Each rank returns its *share*, such that the
mean of the shares is that loss and the mean of the ranks' gradients (which DDP takes) is its gradient. `gather` is
differentiable: its backward sums over the ranks, so that a row feels every rank that used it. No other file calls
torch.distributed. On one process every function is the identity and costs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F


def world() -> int:
    """The number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


@contextmanager
def processes(device: torch.device) -> Iterator[None]:
    """Join the processes that `torchrun` or `accelerate launch` started; one process alone joins nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(world())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        # gloo has no reduce_scatter for every type, so the sum travels whole and each rank keeps its rows.
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(world())[rank()]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def gather(x: Tensor) -> Tensor:
    """The rows of all ranks, rank by rank: N x ... -> WN x .... Every rank must hold the same number of rows."""
    if world() == 1:
        return x
    return _Gather.apply(x)  # pyright: ignore[reportReturnType]


def exchange(value: Any) -> list[Any]:
    """What each rank gives, rank by rank: anything that can be pickled, on the CPU, without gradient."""
    if world() == 1:
        return [value]
    values: list[Any] = [None] * world()
    dist.all_gather_object(values, value)
    return values


def total(x: Tensor) -> Tensor:
    """The sum over the ranks, element by element; the gradient is summed too."""
    if world() == 1:
        return x
    return _Sum.apply(x)  # pyright: ignore[reportReturnType]


def highest(x: Tensor) -> Tensor:
    """The maximum over the ranks, element by element, without gradient."""
    if world() == 1:
        return x
    top = x.detach().clone()
    dist.all_reduce(top, dist.ReduceOp.MAX)
    return top


def share(values: Tensor, keep: Tensor | None = None) -> Tensor:
    """This rank's share of the mean of `values` (N) over all ranks, over the rows where `keep` (N, bool) holds.

    The mean of the shares over the ranks is the mean of all kept rows; 0 where none is kept.
    """
    if keep is None:
        return values.mean()
    kept = torch.where(keep, values, torch.zeros_like(values)).sum()
    count = total(keep.sum().to(values.dtype))
    return kept * world() / count.clamp(min=1)


def anywhere(flag: bool) -> bool:
    """True on every rank if `flag` is true on any: how ranks agree to stop or save at the same step."""
    if world() == 1:
        return flag
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else "cpu"
    votes = torch.tensor(float(flag), device=device)
    dist.all_reduce(votes)
    return bool(votes > 0)


def barrier() -> None:
    """Wait for all ranks."""
    if world() > 1:
        dist.barrier()


def local(x: Tensor) -> Tensor:
    """This rank's part of rows that stand for all ranks: WN x ... -> N x .... The inverse of `gather`."""
    return x.tensor_split(world())[rank()] if world() > 1 else x


def columns(rows: Tensor) -> Tensor:
    """Where this rank's rows stand among those that `gather` makes of them: N, int64."""
    return rank() * len(rows) + torch.arange(len(rows), device=rows.device)


def normalize(x: Tensor) -> Tensor:
    """Rows of unit length, in at least float32: N x D."""
    return F.normalize(x.float() if x.dtype in (torch.float16, torch.bfloat16) else x, dim=1)
