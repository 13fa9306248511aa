"""The optimizer and the learning rates that the settings of a run name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.optim import Optimizer

from nearfar import optim
from nearfar.method import Encoder, Method
from nearfar.settings import Settings


def make_optimizer(method: Method, settings: Settings, batch: int) -> Optimizer:
    """The optimizer; its learning rates are for a batch of 256, and grow in proportion to the batch.

    Raises ValueError where layers are to learn at different rates, and the encoder's are in no known order.
    """
    scale = batch / 256
    lr, momentum = settings.lr * scale, settings.sgd_momentum
    layers: list[list[torch.nn.Parameter]] = []
    if settings.layer_decay != 1:
        layers = method.encoder.depths()
    elif settings.start_pull:
        layers = [list(method.encoder.parameters())]
    groups = optim.layer_groups(
        method,
        layers,
        settings.weight_decay,
        lr=lr,
        by=settings.layer_decay,
        layers_decay=0.0 if settings.start_pull else settings.weight_decay,
        exclude_1d=not settings.decay_1d,
        lr_1d=settings.lr_1d * scale or None,
    )
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


def learns_behind(method: Method) -> bool:
    """Whether a method trains anything besides its encoder, which can then stand still for a while."""
    own = set(method.encoder.parameters())
    return any(p.requires_grad and p not in own for p in method.parameters())


def pull(encoder: Encoder, strength: float) -> Callable[[], None]:
    """What adds to the gradients of an encoder those of strength / 2 |w - w0|^2, w0 its weights as they are now.

    L2-SP, Li et al. 2018, arXiv 1802.01483. A weight without a gradient is left alone.
    """
    began = [(p, p.detach().clone()) for p in encoder.parameters() if p.requires_grad]

    @torch.no_grad()
    def add() -> None:
        for p, start in began:
            if p.grad is not None:
                p.grad.add_(p - start, alpha=strength)

    return add
