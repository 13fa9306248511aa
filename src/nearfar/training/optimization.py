"""The optimizer and the learning rates that the settings of a run name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torch.optim import Optimizer

from nearfar import optim
from nearfar.settings import Settings


def make_optimizer(method: nn.Module, settings: Settings, batch: int) -> Optimizer:
    """The optimizer; its learning rates are for a batch of 256, and grow in proportion to the batch."""
    scale = batch / 256
    groups = optim.parameter_groups(
        method, settings.weight_decay, exclude_1d=not settings.decay_1d, lr_1d=settings.lr_1d * scale or None
    )
    lr, momentum = settings.lr * scale, settings.sgd_momentum
    match settings.optimizer:
        case "sgd":
            return optim.sgd(groups, lr, momentum=momentum)
        case "lars":
            return optim.lars(groups, lr, momentum=momentum, rate_in_momentum=True)
        case "lars_outside":
            return optim.lars(groups, lr, momentum=momentum, rate_in_momentum=False)
        case "larc":
            return optim.larc(groups, lr, momentum=momentum)
        case "adam":
            return optim.adam(groups, lr, betas=(settings.beta1, 0.999))
        case "adamw":
            return optim.adamw(groups, lr, betas=(settings.beta1, 0.999))


def make_schedule(settings: Settings, per_epoch: int) -> Callable[[int, int], float]:
    """The factor on the learning rates, from (step, steps): a linear rise, then a cosine.

    per_epoch: steps in an epoch. The rise takes a tenth of all steps at most.
    """
    rise = round(min(settings.warmup, settings.epochs / 10) * per_epoch)
    return lambda step, steps: optim.warmup_cosine(step, steps=steps, warmup=rise, floor=settings.floor)
