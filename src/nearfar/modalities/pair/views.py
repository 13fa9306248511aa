"""Views of pairs: those of each side, by its name, of the same draws; of several entries of a side one is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from nearfar.batch import pin, select, to
from nearfar.data.source import Views


@dataclass(frozen=True)
class Entries:
    """What a side holds of N samples: the inputs of its kind, and how many of these each sample has.

    inputs: as the kind's samples fetch them, of all entries, those of a sample one after the other.
    entries: N, int64, at least 1 each.
    """

    inputs: tuple[Any, ...]
    entries: Tensor

    def count(self) -> int:
        return len(self.entries)

    def turn(self, chance: Tensor | None, other: Tensor | None = None) -> Tensor:
        """Which entry of each sample is taken: N, int64, the first where nothing is drawn.

        chance: N uniform numbers.  other: of each sample an entry that is taken already: another one, where there is.
        """
        if chance is None:
            return torch.zeros_like(self.entries)
        chance = chance.to(self.entries.device)
        if other is None:
            return (chance * self.entries).long()
        return (other + 1 + (chance * (self.entries - 1)).long()) % self.entries

    def at(self, turn: Tensor) -> tuple[Any, ...]:
        """The inputs of one entry of each sample."""
        if len(self.entries) == int(self.entries.sum()):
            return self.inputs
        first = self.entries.cumsum(0) - self.entries
        return tuple(select(part, first + turn) for part in self.inputs)

    def to(self, device: torch.device) -> Entries:
        return Entries(tuple(to(part, device) for part in self.inputs), self.entries.to(device))

    def pin(self) -> Entries:
        return replace(self, inputs=tuple(map(pin, self.inputs)))


@dataclass(frozen=True)
class Draws:
    """sides: the draws of each.  chance: N x sides, uniform numbers, by which one of several entries is taken."""

    sides: list[Any]
    chance: Tensor

    def rows(self, rows: slice) -> Draws:
        return Draws([one.rows(rows) for one in self.sides], self.chance[rows])


class PairViews:
    """V views of each sample, each a dict of a view of every side.

    sides: of each, by its name, views that make V.  twins: of a side that holds the same entries as one before it, that
    one: the two take different entries of a sample.
    """

    def __init__(self, sides: Mapping[str, Views], twins: Mapping[str, str] | None = None) -> None:
        self.sides, self.twins = dict(sides), dict(twins or {})
        self.alike = all(getattr(views, "alike", False) for views in sides.values())

    def __len__(self) -> int:
        return len(next(iter(self.sides.values())))

    def draw(self, n: int, generator: torch.Generator) -> Draws:
        sides = [views.draw(n, generator) for views in self.sides.values()]
        return Draws(sides, torch.rand(n, len(sides), generator=generator))

    def __call__(self, *inputs: Entries, draws: Draws | None = None) -> list[dict[str, Any]]:
        """inputs: as `PairSamples.fetch` gives them.  draws: from `draw`; none where all sides do without."""
        made: list[list[Any]] = []
        for k, (views, turn) in enumerate(zip(self.sides.values(), self.turns(inputs, draws), strict=True)):
            own = {} if draws is None else {"draws": draws.sides[k]}
            made.append(views(*inputs[k].at(turn), **own))
        return [dict(zip(self.sides, parts, strict=True)) for parts in zip(*made, strict=True)]

    def turns(self, inputs: Sequence[Entries], draws: Draws | None) -> list[Tensor]:
        """For each side, which entry of each sample its views are made of: N, int64."""
        turns: dict[str, Tensor] = {}
        for k, (name, entries) in enumerate(zip(self.sides, inputs, strict=True)):
            chance = None if draws is None else draws.chance[:, k]
            turns[name] = entries.turn(chance, turns.get(self.twins.get(name, "")))
        return list(turns.values())
