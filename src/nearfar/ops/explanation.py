"""What of an image a classifier goes by: maps of how much each place speaks for a label.

A map of one image feels no other only where norm layers use their running statistics, as they do within `at_rest`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nearfar.method import Encoder

Network = Callable[[Any], Tensor]


def gradcam(encoder: Encoder, classifier: Network, x: Tensor, label: Tensor, *, stage: int) -> Tensor:
    """Grad-CAM: the channels of a map, each weighted by the mean slope of the label's logit in it: N x H x W.

        e = sum_c A_c mean_uv(d logit_y / d A_c,uv),    brought to the side of the image

    stage: the map A is what the first so many of the encoder's stages give.  x: N x C x H x W.  label: N, int64, none
    of them missing. What speaks against the label is below 0, where the paper puts 0. Selvaraju et al. 2016, arXiv
    1610.02391.
    """
    stages = encoder.stages()
    with torch.no_grad():
        a = _through(stages[:stage], x)  # N x C' x H' x W'
    weight = slope(lambda a: classifier(_through(stages[stage:], a)), a, label).mean((2, 3), keepdim=True)
    return F.interpolate((weight * a).sum(1, keepdim=True), x.shape[2:], mode="bilinear")[:, 0]


def saliency(encoder: Network, classifier: Network, x: Tensor, label: Tensor) -> Tensor:
    """How fast the label's logit moves with each pixel, the sum over its channels: N x H x W.

    Simonyan et al. 2013, arXiv 1312.6034, who take the largest.
    """
    return slope(lambda x: classifier(encoder(x)), x, label).abs().sum(1)


def slope(network: Network, x: Tensor, label: Tensor) -> Tensor:
    """The gradient of each row's logit of its label in the row itself: as x. No parameter gets one."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        logits = network(x)  # N x classes
        return torch.autograd.grad(logits.gather(1, label[:, None]).sum(), x)[0]


@torch.no_grad()
def essence(
    explain: Callable[[Encoder, Network, Tensor, Tensor], Tensor],
    encoder: Encoder,
    classifier: Network,
    x: Tensor,
    label: Tensor,
    *,
    threshold: float,
    at_once: int = 0,
) -> tuple[Tensor, Tensor]:
    """What is left of images where their map is above a threshold, and whether it is still given the label.

    explain: `saliency`, or `gradcam` of a stage.  x: N x C x H x W.  label: N, int64; one that is missing is not given.
    threshold: of maps from 0 to 1; the rest takes the encoder's mean color, or 0.5 where it has none.  at_once: how
    many images; 0 is all. Gives N x C x H x W and N, bool. All in eval mode. Zhang et al. 2021, arXiv 2111.14271.
    """
    left, right = [], []
    with at_rest(encoder):
        for part, y in zip(x.split(at_once or len(x)), label.split(at_once or len(x)), strict=True):
            e = to_one(explain(encoder, classifier, part, y.clamp(min=0)))  # n x H x W
            left.append(torch.where(e[:, None] > threshold, part, getattr(encoder, "mean", 0.5)))
            right.append(classifier(encoder(left[-1])).argmax(1) == y)
    return torch.cat(left), torch.cat(right)


def to_one(e: Tensor) -> Tensor:
    """Each map scaled so that its lowest place is 0 and its highest 1; 0 everywhere if it is the same everywhere.

    It counts as the same where places differ by no more than rounding: a map of one place, brought to the side of an
    image, does, and scaled up its rounding would choose at random.
    """
    low, high = e.amin((1, 2), keepdim=True), e.amax((1, 2), keepdim=True)
    rounding = 8 * torch.finfo(e.dtype).eps * torch.maximum(low.abs(), high.abs())
    return torch.where(high - low > rounding, (e - low) / (high - low), 0.0)


@contextmanager
def at_rest(module: nn.Module) -> Iterator[None]:
    """Within: eval mode; afterward each layer is in the mode that it was in."""
    before = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in before:
            part.training = training


def _through(stages: Sequence[Network], x: Any) -> Tensor:
    return reduce(lambda h, stage: stage(h), stages, x)
