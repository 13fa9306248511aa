"""Pairs that a formula really needs, one by one: strips of the matrix, made again in the backward pass.

Where `far` and `near` do not fit, because something other than exp(s_ij) is summed over j. The N x M matrix is never
held, only a strip of its rows at a time; the price is that each strip is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

ENTRIES = 1 << 22
"""Of a strip: 16 MiB of single precision."""


def strips(part: Callable[[slice], Tensor], rows: int, columns: int) -> list[Tensor]:
    """`part` of each strip of rows in turn, first to last, none of more than ENTRIES pairs if it can be.

    part: draws nothing at random, and reads tensors that learn from around it. Autocast is off within.
    """
    tall = max(1, ENTRIES // max(columns, 1))
    if rows <= tall:
        return [_exact(part, slice(0, rows))]
    each = [slice(top, min(top + tall, rows)) for top in range(0, rows, tall)]
    again = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
    return [again(_exact, part, where) for where in each]  # pyright: ignore[reportReturnType]


def _exact(part: Callable[[slice], Tensor], where: slice) -> Tensor:
    # Half precision would round the very similarities of which differences and squares are taken.
    with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
        return part(where)
