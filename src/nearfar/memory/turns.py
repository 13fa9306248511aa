"""Rows of which several have one id, and each must wait for the one before it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def turns(ids: Tensor) -> Tensor:
    """How many rows of its id come before each: 0 for the first, 1 for the second. N, int64, of any sign -> N."""
    order = ids.argsort(stable=True)
    _, counts = torch.unique_consecutive(ids[order], return_counts=True)
    place = torch.arange(len(ids), device=ids.device) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    return torch.empty_like(order).scatter(0, order, place)


def in_turns(ids: Tensor) -> Iterator[Tensor]:
    """The rows in which each id is met for the first time, then for the second, and so on: none twice at once."""
    turn = turns(ids)
    for number in range(int(turn.max()) + 1 if len(turn) else 0):
        yield (turn == number).nonzero()[:, 0]
