"""Views of the rows of a table: some columns take the values of other rows, are blanked, or are mixed.

A view is what the encoder takes: numbers, ones for the categories, ones for what is missing, N x D. Values
are exchanged before that, so that a category gives way to a category. All chance lies in `Draws`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.errors import UserError
from nearfar.modalities.table.columns import Columns


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How one view is made.

    corrupt: share of the columns, rounded down, whose value is that of a training row drawn anew for each: SCARF
        (arXiv 2106.15147).
    blank: probability that a number is set to its mean (arXiv 2010.08887, there called input dropout).
    mix: alpha of the Beta distribution of the weight by which a row is blended with a training row; the larger part
        stays its own. 0 mixes nothing.
    """

    corrupt: float = 0.0
    blank: float = 0.0
    mix: float = 0.0


@dataclass(frozen=True, slots=True)
class Draws:
    """The chance behind the views of N rows of M columns: uniform numbers, N x V x (3M + 1), and weights, N x V."""

    numbers: Tensor
    weights: Tensor

    def rows(self, rows: slice) -> Draws:
        return Draws(self.numbers[rows], self.weights[rows])


class Views:
    """Turn rows into V views, N x D each. reference: the numbers and codes of training rows, whose values are drawn."""

    def __init__(self, views: Sequence[View], columns: Columns, reference: tuple[Tensor, Tensor] | None = None) -> None:
        self.views, self.columns, self.reference = tuple(views), columns, reference
        if reference is None and any(view.corrupt or view.mix for view in self.views):
            raise UserError("views that corrupt or mix take their values from training rows: give them as reference")

    def __len__(self) -> int:
        return len(self.views)

    def draw(self, n: int, generator: torch.Generator) -> Draws:
        numbers = torch.rand(n, len(self), 3 * len(self.columns) + 1, generator=generator)
        random = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        weights = torch.ones(n, len(self))
        for v, view in enumerate(self.views):
            if view.mix:
                weight = random.beta(view.mix, view.mix, n)
                weights[:, v] = torch.from_numpy(np.maximum(weight, 1 - weight))
        return Draws(numbers, weights)

    @torch.no_grad()
    def __call__(self, numbers: Tensor, codes: Tensor, draws: Draws | None = None) -> list[Tensor]:
        """numbers: N x A, NaN where missing.  codes: N x B.  draws: from `draw`; not needed where nothing is random."""
        if draws is None:
            draws = Draws(torch.zeros(len(numbers), len(self), 3 * len(self.columns) + 1), torch.ones(1, len(self)))
        return [
            self._view(view, numbers, codes, draws.numbers[:, v].to(numbers.device), draws.weights[:, v])
            for v, view in enumerate(self.views)
        ]

    def changed(self, view: View, numbers: Tensor, codes: Tensor, chance: Tensor) -> tuple[Tensor, Tensor]:
        """The rows with columns corrupted and numbers blanked; chance: N x (3M + 1)."""
        columns, first = len(self.columns), numbers.shape[1]
        if view.blank:
            gives_way = (chance[:, 2 * columns : 2 * columns + first] < view.blank) & ~numbers.isnan()
            numbers = numbers.masked_fill(gives_way, 0)
        count = int(view.corrupt * columns)
        if not count or self.reference is None:
            return numbers, codes
        order, row = chance[:, :columns], chance[:, columns : 2 * columns]
        gives_way = torch.zeros_like(order, dtype=torch.bool).scatter_(1, order.argsort(1)[:, :count], True)  # N x M
        other_numbers, other_codes = (part.to(numbers.device) for part in self.reference)
        row = (row * len(other_numbers)).long()  # N x M
        numbers = torch.where(gives_way[:, :first], other_numbers.gather(0, row[:, :first]), numbers)
        return numbers, torch.where(gives_way[:, first:], other_codes.gather(0, row[:, first:]), codes)

    def _view(self, view: View, numbers: Tensor, codes: Tensor, chance: Tensor, weight: Tensor) -> Tensor:
        x = expand(self.columns, *self.changed(view, numbers, codes, chance))
        if view.mix and self.reference is not None:
            row = (chance[:, -1] * len(self.reference[0])).long()
            other = expand(self.columns, *(part.to(x.device)[row] for part in self.reference))
            x = torch.lerp(other, x, weight.to(x)[:, None])
        return x


def expand(columns: Columns, numbers: Tensor, codes: Tensor) -> Tensor:
    """The inputs that rows make: N x D. Numbers, then whether each that may be missing is, then ones for categories."""
    known = numbers.nan_to_num(0.0)
    if (pieces := columns.pieces) is not None:
        which, begins, low, high = (part.to(known.device) for part in pieces)
        known = torch.minimum(torch.maximum(known[:, which] - begins, low), high)
    parts = [known]
    if gaps := [a for a, column in enumerate(columns.numbers) if column.gaps]:
        parts.append(numbers[:, gaps].isnan().to(numbers.dtype))
    for b, column in enumerate(columns.categories):
        parts.append(F.one_hot(codes[:, b] + 1, column.width + 1)[:, 1:].to(numbers.dtype))  # -1 is no category
    return torch.cat(parts, 1)


def views(
    name: str, columns: Columns, reference: tuple[Tensor, Tensor], *, corruption: float = 0.6, count: int = 0
) -> Views:
    """The views called `name`: scarf (a row as it is, and corrupted), corrupted (both), blanked, or mixed.

    count: so many of them, the first, or all of them again; 0 as many as there are.
    Raises ValueError for another name.
    """
    known = {
        "scarf": (View(), View(corrupt=corruption)),
        "corrupted": (View(corrupt=corruption),) * 2,
        "blanked": (View(blank=0.2),) * 2,
        "mixed": (View(mix=1.0),) * 2,
    }
    if name not in known:
        raise UserError(f"--views {name!r} is not for tables: choose one of {', '.join(known)}")
    return Views(list(islice(cycle(known[name]), count or len(known[name]))), columns, reference)


def plain(columns: Columns) -> Views:
    """Rows as they are."""
    return Views([View()], columns)
