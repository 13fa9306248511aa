"""What every choice on training rows rests on: parts of them that are held out, and features standardized on others."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from nearfar.data.splits import folds
from nearfar.errors import UserError

MANY = 5000
"""Rows beyond which one part is held out and not each in turn."""

TRIED = 2000
"""Held-out rows of a part on which neighbors and few labels are tried, at most: enough to choose."""

Scale = Literal["each", "one"]


def holdouts(y: Tensor, group: Tensor | None, seed: int) -> list[Tensor]:
    """Masks N of the held-out rows: a stratified fifth, or with few rows each of five fifths in turn.

    No part where most classes have one row, or all rows are of one group.
    """
    if group is None and 2 * int(y.max() + 1) > len(y):
        return []
    try:
        parts = [part for _, part in folds(y, group, folds=5, seed=seed)]
    except UserError:  # all rows are of one group
        return []
    masks = []
    for part in parts[:1] if len(y) > MANY else parts:
        mask = torch.zeros(len(y), dtype=torch.bool, device=y.device)
        mask[part.to(y.device)] = True
        masks.append(mask)
    return masks


def standardize(train: Tensor, test: Tensor, scale: Scale = "each") -> tuple[Tensor, Tensor]:
    """Both with the mean and deviation of the first; a feature that never varies becomes 0."""
    x, mean, factor = standardized(train, scale)
    return x, (test - mean) * factor


def standardized(x: Tensor, scale: Scale) -> tuple[Tensor, Tensor, Tensor]:
    """The rows with mean 0 and deviation 1, their mean, and 1 / deviation, which is 0 for what never varies."""
    mean = x.mean(0)
    centered = x - mean
    if scale == "one":
        whole = centered.square().mean().sqrt().clamp(min=1e-12)
        return centered.div_(whole), mean, (1 / whole).expand(x.shape[1])
    deviation = centered.square().mean(0).sqrt()  # torch.std takes ten times as long along the first dimension
    factor = torch.where(deviation > 1e-6 * mean.abs(), 1 / deviation, 0)
    return centered.mul_(factor), mean, factor
