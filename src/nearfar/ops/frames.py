"""Clips taken apart along time, for tasks that ask what was done to the order or the speed of their frames."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.errors import UserError, counted


def cut_in_time(clip: Tensor, count: int, gap: float = 0.0) -> Tensor:
    """Parts of a clip one after the other: N x T x ... -> N x count x L x ....

    gap: share of a part's frames that is left out behind it.  Raises ValueError where there are too few frames.
    """
    cell = clip.shape[1] // count
    if cell < 1:
        raise UserError(f"clips of {counted(clip.shape[1], 'frames')} have no {count} parts: give more --clip-frames")
    length = max(1, round(cell * (1 - gap)))
    return torch.stack([clip[:, at : at + length] for at in range(0, count * cell, cell)], 1)


def at_speed(clip: Tensor, speed: int, length: int, place: Tensor) -> Tensor:
    """So many frames of a clip, each `speed` after the one before: N x T x ... -> N x length x ....

    place: N, uniform numbers, by which they begin where they do.
    """
    room = clip.shape[1] - (length - 1) * speed  # places to begin at
    which = (place * room).long()[:, None] + speed * torch.arange(length)
    return clip[torch.arange(len(clip), device=clip.device)[:, None], which.to(clip.device)]


def moving(clip: Tensor, target: Tensor, least: float) -> Tensor:
    """The targets of clips in which something moves; MISSING for the others, whose frames have no order to tell.

    clip: N x T x ..., of values in [0, 1]; target: N, int64.  least: the mean difference from the first frame that some
    frame must have.
    """
    apart = (clip[:, 1:] - clip[:, :1]).abs().flatten(2).mean(2).amax(1)
    return torch.where(apart > least, target, MISSING)
