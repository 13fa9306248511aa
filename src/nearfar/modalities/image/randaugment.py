"""RandAugment on a batch of views: operations of torchvision, of which each sample has its own.

All samples that draw an operation in the same direction pass it together: their strength is one, the magnitude.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nearfar.errors import UserError
from nearfar.modalities.image.plan import OPERATIONS

STRONGEST = 30
"""The highest magnitude."""


def randaugment(x: Tensor, operations: Tensor, reverse: Tensor, magnitude: int) -> Tensor:
    """Views after their operations, one round after the other, with the ranges of torchvision's RandAugment, 14
    operations and 31 magnitudes (Cubuk et al. 2020, arXiv 1909.13719).

    x: n x C x s x s, in [0, 1]; it is rounded to 8 bits, as the operations are defined on these. What a map uncovers is
    black. Where C is neither 1 nor 3, each channel is changed as a gray image.
    operations: n x rounds, which of the 14.  reverse: n x rounds, bool: those that have a direction take the other one.
    magnitude: 0 to 30.
    """
    shape = x.shape
    if shape[1] not in (1, 3):
        operations, reverse = (part.repeat_interleave(shape[1], dim=0) for part in (operations, reverse))
        x = x.reshape(-1, 1, *shape[2:])
    x = x.mul(255).round_().byte()
    ways = _ways(magnitude, shape[-1])
    for which, turned in zip(operations.unbind(1), reverse.unbind(1), strict=True):
        for number, way in enumerate(ways):
            for direction, backward in ((1, False), (-1, True)):
                rows = ((which == number) & (turned == backward)).nonzero()[:, 0]
                if way is not None and len(rows):
                    x[rows] = way(x[rows], direction)
    return x.float().div_(255).view(shape)


def _ways(magnitude: int, side: int) -> list[Callable[[Tensor, int], Tensor] | None]:
    """What each operation does to views of that side: of these and 1 or -1, the direction; None does nothing."""
    try:
        from torchvision.transforms.v2 import functional as F
    except ImportError as error:
        raise UserError(f"RandAugment needs torchvision ({error}): pip install torchvision") from error

    def strength(most: float, least: float = 0.0) -> float:
        """In single precision, as there: a change may otherwise be rounded to another byte."""
        return float(torch.linspace(least, most, STRONGEST + 1)[magnitude])

    far = float(int(strength(150.0 / 331.0 * side)))
    slant = math.degrees(math.atan(strength(0.3)))

    def sheared(x: Tensor, direction: int, axis: int) -> Tensor:
        angles = [0.0, 0.0]
        angles[axis] = direction * slant
        return F.affine(x, angle=0.0, translate=[0.0, 0.0], scale=1.0, shear=angles, center=[0.0, 0.0])

    def moved(x: Tensor, direction: int, axis: int) -> Tensor:
        way = [0.0, 0.0]
        way[axis] = direction * far
        return F.affine(x, angle=0.0, translate=way, scale=1.0, shear=[0.0, 0.0])

    def stronger(x: Tensor, direction: int, adjust: Callable[[Any, float], Any]) -> Tensor:
        return adjust(x, 1.0 + direction * strength(0.9))

    ways: list[Callable[[Tensor, int], Tensor] | None] = [
        None,
        partial(sheared, axis=0),
        partial(sheared, axis=1),
        partial(moved, axis=0),
        partial(moved, axis=1),
        lambda x, direction: F.rotate(x, angle=direction * strength(30.0)),
        partial(stronger, adjust=F.adjust_brightness),
        partial(stronger, adjust=F.adjust_saturation),
        partial(stronger, adjust=F.adjust_contrast),
        partial(stronger, adjust=F.adjust_sharpness),
        lambda x, direction: F.posterize(x, bits=round(8 - strength(4.0))),
        lambda x, direction: F.solarize(x, threshold=255 * strength(0.0, 1.0)),
        lambda x, direction: F.autocontrast(x),
        lambda x, direction: F.equalize(x),
    ]
    assert len(ways) == OPERATIONS
    return ways
