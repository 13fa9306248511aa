"""Optimizers as plain functions of parameter groups, and schedules as plain functions of the step."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from nearfar.errors import UserError
from nearfar.optim.lars import LARS
from nearfar.optim.schedules import cosine_ramp, step_decay, warmup_cosine
from nearfar.optim.uncompiled import Uncompiled

__all__ = [
    "LARS",
    "adam",
    "adamw",
    "cosine_ramp",
    "larc",
    "lars",
    "layer_groups",
    "parameter_groups",
    "scale_rates",
    "sgd",
    "step_decay",
    "warmup_cosine",
]


def parameter_groups(
    module: nn.Module, weight_decay: float, *, exclude_1d: bool = True, lr_1d: float | None = None
) -> list[dict[str, Any]]:
    """The trained parameters of `module` as groups for any optimizer here.

    exclude_1d: biases, and all else of one dimension (norm layers), form a group of their own without decay and,
        under LARS, without adaptation.  lr_1d: the learning rate of that group (Barlow Twins: 0.0048 to 0.2).
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    if not trained:
        raise UserError(f"{type(module).__name__} has no parameter that is trained")
    return _groups(trained, weight_decay, exclude_1d, lr_1d)


def layer_groups(
    module: nn.Module,
    layers: Sequence[Sequence[nn.Parameter]],
    weight_decay: float,
    *,
    lr: float,
    by: float,
    layers_decay: float,
    exclude_1d: bool = True,
    lr_1d: float | None = None,
) -> list[dict[str, Any]]:
    """The groups of `parameter_groups`, first of what is in no layer, then of each layer from the last to the first,
    whose rate is `by` times that behind it (Clark et al. 2020, arXiv 2003.10555).

    layers: parameters of a part of the module, from the input on.  lr: of what is in no layer.
    layers_decay: the weight decay of what is in a layer.
    """
    known = {p for layer in layers for p in layer}
    rest = parameter_groups(module, weight_decay, exclude_1d=exclude_1d, lr_1d=lr_1d)
    for group in rest:
        group["params"] = [p for p in group["params"] if p not in known]
    groups = [group for group in rest if group["params"]]
    for depth, layer in enumerate(reversed(layers), 1):
        for group in _groups([p for p in layer if p.requires_grad], layers_decay, exclude_1d, lr_1d):
            group["lr"] = group.get("lr", lr) * by**depth
            groups.append(group)
    return groups


def _groups(
    trained: list[nn.Parameter], weight_decay: float, exclude_1d: bool, lr_1d: float | None
) -> list[dict[str, Any]]:
    if not exclude_1d:
        if lr_1d is not None:
            raise UserError(f"lr_1d={lr_1d} needs exclude_1d=True")
        return [{"params": trained, "weight_decay": weight_decay, "adapt": True}]
    matrices = {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay, "adapt": True}
    vectors = {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0, "adapt": False}
    if lr_1d is not None:
        vectors["lr"] = lr_1d
    return [group for group in (matrices, vectors) if group["params"]]


def scale_rates(optimizer: Optimizer, factor: float) -> None:
    """Set each group's learning rate to `factor` times the one it was built with."""
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor


class _SGD(Uncompiled, torch.optim.SGD):
    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))


class _Adam(Uncompiled, torch.optim.Adam):
    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))


class _AdamW(Uncompiled, torch.optim.AdamW):
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


def _remember(optimizer: Optimizer) -> Optimizer:
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    return optimizer


def sgd(groups: list[dict[str, Any]], lr: float, *, momentum: float = 0.9, nesterov: bool = False) -> Optimizer:
    """torch's SGD with momentum, the learning rate outside the momentum buffer."""
    # Not fused: that one fails where a parameter gets its first gradient later than others (SwAV's prototypes), and
    # leaves garbage in the momentum where a gradient scaler skips a step.
    return _remember(_SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov))


def adam(
    groups: list[dict[str, Any]], lr: float, *, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
) -> Optimizer:
    """torch's Adam, whose weight decay is part of the gradient (arXiv 1412.6980)."""
    return _remember(_Adam(groups, lr=lr, betas=betas, eps=eps, fused=True))


def adamw(
    groups: list[dict[str, Any]], lr: float, *, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
) -> Optimizer:
    """torch's AdamW (arXiv 1711.05101)."""
    return _remember(_AdamW(groups, lr=lr, betas=betas, eps=eps, fused=True))


def lars(
    groups: list[dict[str, Any]], lr: float, *, rate_in_momentum: bool, momentum: float = 0.9, trust: float = 0.001
) -> Optimizer:
    """LARS: with rate_in_momentum=True as SimCLR has it, with False as BYOL and Barlow Twins do."""
    return _remember(LARS(groups, lr=lr, rate_in_momentum=rate_in_momentum, momentum=momentum, trust=trust))


def larc(groups: list[dict[str, Any]], lr: float, *, momentum: float = 0.9, trust: float = 0.001) -> Optimizer:
    """LARC without clip, as SwAV has it: give it `parameter_groups(..., exclude_1d=False)`, it adapts all."""
    return _remember(LARS(groups, lr=lr, rate_in_momentum=False, momentum=momentum, trust=trust, larc=True))
