"""Batch norms over other rows than this process's batch: over those of all ranks, or over groups of them.

Both keep the state dict of the norm they replace, so that weights load elsewhere as if nothing had happened.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from nearfar.batch import cat, select, size, tensors, to
from nearfar.distributed import exchange, gather, local, world
from nearfar.errors import UserError

M = TypeVar("M", bound=nn.Module)


class _Norm(_BatchNorm):
    """A batch norm with the parts that timm's BatchNormAct2d has behind it; both do nothing in a plain norm."""

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, affine=False, track_running_stats=False)
        _adopt(self, norm)
        self.drop = getattr(norm, "drop", nn.Identity())
        self.act = getattr(norm, "act", nn.Identity())

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise UserError(f"expected a batch of vectors or maps, got a tensor of shape {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        return self.act(self.drop(self.normalize(input)))

    def normalize(self, x: Tensor) -> Tensor:
        return super().forward(x)

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor) -> None:
        # As torch does: `var` is the unbiased one, and momentum None means the average over all steps so far.
        if not self.track_running_stats or self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(var.to(self.running_var.dtype), momentum)


class GlobalBatchNorm(_Norm):
    """Batch norm over the rows of all ranks, differentiable, on any backend (torch's SyncBatchNorm needs a GPU).

    norm: the batch norm whose parameters and buffers it shares. N x C x ... -> N x C x ...; N may differ from rank to
        rank, as rows may be words or nodes, of which samples have more or fewer.
    """

    def normalize(self, x: Tensor) -> Tensor:
        if not self.training or world() == 1:
            return super().normalize(x)
        self._check_input_dim(x)
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        axes = [0, *range(2, x.dim())]
        shape = [1, -1] + [1] * (x.dim() - 2)
        var, mean = torch.var_mean(wide, axes, correction=0)  # C, C
        # One collective for all. The parts are merged by their means, not by sums of squares, which would cancel.
        count = torch.full_like(mean, x.numel() / x.shape[1])
        var, mean, count = gather(torch.stack((var, mean, count))[None]).unbind(1)  # W x C each
        rows = count.sum(0)  # C
        part = count / rows  # W x C, the share of each rank
        center = (part * mean).sum(0)  # C
        var = (part * (var + (mean - center).square())).sum(0)  # C
        self._track(center.detach(), var.detach() * (rows / (rows - 1).clamp(min=1)))
        scale = (var + self.eps).rsqrt() if self.weight is None else self.weight * (var + self.eps).rsqrt()
        shift = -center * scale if self.bias is None else self.bias - center * scale
        return torch.addcmul(shift.view(shape), wide, scale.view(shape)).to(x.dtype)


class SplitBatchNorm(_Norm):
    """Batch norm over each of several groups of neighboring rows: one GPU does as if it were many.

    MoCo needs it: over the whole batch, the statistics of the keys give the answer away (arXiv 1911.05722, 3.3).

    norm: the batch norm whose parameters and buffers it shares.
    splits: groups in the global batch, shared out over the ranks; fewer where a group would have less than two rows.
        Where they do not divide this rank's rows, such as the nodes of graphs, the first groups have a row more.
    The running statistics move by the average of the groups.
    """

    def __init__(self, norm: _BatchNorm, splits: int) -> None:
        if splits < 1:
            raise UserError(f"a batch is split into 1 group or more, got splits={splits}")
        super().__init__(norm)
        self.splits = splits

    def groups(self, rows: int) -> int:
        """In how many groups this rank normalizes so many rows."""
        return max(1, min(self.splits // world(), rows // 2))

    def normalize(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().normalize(x)
        self._check_input_dim(x)
        groups = self.groups(len(x))
        stats = torch.zeros(2, groups, self.num_features, device=x.device, dtype=_wide(x.dtype))  # 2 x G x C
        parts = [
            # momentum 1 makes the running statistics of the call those of the group
            F.batch_norm(part, mean, var, self.weight, self.bias, training=True, momentum=1.0, eps=self.eps)
            for part, mean, var in zip(x.tensor_split(groups), *stats, strict=True)
        ]
        self._track(*stats.mean(1))
        return torch.cat(parts)


class _SyncBatchNorm(nn.SyncBatchNorm):
    """torch's, with the parts that timm's BatchNormAct2d has behind it."""

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum or 0.0, affine=False, track_running_stats=False)
        _adopt(self, norm)
        self.momentum = norm.momentum
        self.drop = getattr(norm, "drop", nn.Identity())
        self.act = getattr(norm, "act", nn.Identity())

    def forward(self, input: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(input)))


def synchronize_norms(module: nn.Module, device: torch.device) -> nn.Module:
    """Replace each plain batch norm in `module` by one over the rows of all ranks; split norms stay as they are.

    The parameters and buffers stay the same objects under the same keys. Works in place; returns `module`, or its
    replacement where it is a batch norm itself.
    """
    return _replace(module, _SyncBatchNorm if device.type == "cuda" else GlobalBatchNorm)


def split_norms(module: M, splits: int) -> M:
    """Replace each plain batch norm in `module` by a `SplitBatchNorm`, as `synchronize_norms` does."""
    return _replace(module, lambda norm: SplitBatchNorm(norm, splits))  # pyright: ignore[reportReturnType]


def twin_norms(module: M) -> M:
    """A copy that shares the weights of `module`, all but those of its batch norms, which have statistics of their own.

    For rows of another distribution than the rest of the batch, such as adversarial ones.
    """
    others = [part for part in module.modules() if not isinstance(part, _BatchNorm)]
    return copy.deepcopy(module, {id(p): p for part in others for p in part.parameters(recurse=False)})


def shuffled(network: Callable[[Any], Tensor], view: Any, generator: torch.Generator) -> Tensor:
    """What `network` makes of a view whose samples are meanwhile shuffled over all ranks: N x D, in order.

    For split norms, and without gradient: the rows that are normalized together are others than those of the queries.
    generator: the same on every rank.
    """
    device = next(tensors(view)).device
    order = torch.randperm(world() * size(view), generator=generator).to(device)
    return local(gather(network(select(_of_all_ranks(view), local(order))))[order.argsort()])


def _of_all_ranks(view: Any) -> Any:
    if isinstance(view, Tensor):
        return gather(view)
    # The parts of other views may differ in shape from rank to rank, until `cat` pads them.
    return view if world() == 1 else to(cat(exchange(to(view, "cpu"))), next(tensors(view)).device)


def _replace(module: nn.Module, make: Callable[[_BatchNorm], nn.Module]) -> nn.Module:
    made: dict[nn.Module, nn.Module] = {}  # a norm that stands in two places stays one
    for path, norm in list(module.named_modules(remove_duplicate=False)):
        if not _plain(norm):
            continue
        if norm not in made:
            made[norm] = make(norm).train(norm.training)
        if path == "":
            return made[norm]
        module.set_submodule(path, made[norm])
    return module


def _plain(module: nn.Module) -> TypeGuard[_BatchNorm]:
    # timm's norm is known by its parts: importing timm to ask would take a second.
    return type(module) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d) or (
        type(module).__name__ == "BatchNormAct2d" and isinstance(module, _BatchNorm)
    )


def _adopt(norm: _BatchNorm, old: _BatchNorm) -> None:
    norm.affine, norm.track_running_stats = old.affine, old.track_running_stats
    norm.weight, norm.bias = old.weight, old.bias
    norm.running_mean, norm.running_var = old.running_mean, old.running_var
    norm.num_batches_tracked = old.num_batches_tracked


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
