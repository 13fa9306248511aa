"""Several encoders by name, each for its own part of a sample, such as an image and its caption."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.errors import UserError
from nearfar.method import Encoder, Stage
from nearfar.nn.apply import Apply

TOWERS = "towers"
"""What the spec of towers says in the place of a kind."""


class Towers(Encoder):
    """Encoders side by side: a view is a dict with an entry for each tower, and what they give stands in one row.

    towers: the encoders by name.  dim: the sum of their widths.
    """

    def __init__(self, towers: Mapping[str, Encoder]) -> None:
        super().__init__()
        if not towers:
            raise UserError("towers are one encoder or more, by name, such as Towers({'left': a, 'right': b}): got 0")
        self.towers = nn.ModuleDict(towers)
        self.dim = sum(encoder.dim for encoder in towers.values())
        self.spec = {"kind": TOWERS, "towers": {name: encoder.spec for name, encoder in towers.items()}}
        self.notes = [f"{name}: {note}" for name, encoder in towers.items() for note in encoder.notes]

    def tower(self, name: str) -> Encoder:
        """One of the encoders. Raises ValueError where none has that name."""
        if name not in self.towers:
            raise UserError(f"there is no tower {name!r}: the towers are {', '.join(self.towers)}")
        return self.towers[name]  # pyright: ignore[reportReturnType] (all of them are encoders)

    def forward(self, view: Mapping[str, Any]) -> Tensor:
        if missing := [name for name in self.towers if name not in view]:
            raise UserError(f"a view for each of {', '.join(self.towers)} is wanted, and {missing[0]!r} is missing")
        return torch.cat([encoder(view[name]) for name, encoder in self.towers.items()], 1)  # N x dim

    def example(self, n: int, generator: torch.Generator | None = None) -> dict[str, Any]:
        return {name: self.tower(name).example(n, generator) for name in self.towers}

    def streams(self) -> list[Stage]:
        """The towers, each of which takes the whole view and sees its part."""
        return [Stage(Apply(itemgetter(name)), self.tower(name), dim=self.tower(name).dim) for name in self.towers]

    def preparation(self) -> dict[str, Any]:
        return {name: self.tower(name).preparation() for name in self.towers}


def pick_tower(encoder: Encoder, name: str) -> Encoder:
    """The tower of that name, or for the name "" the encoder as it is.

    Raises ValueError for a name that no tower has, and where the encoder has no towers.
    """
    if not name:
        return encoder
    if not isinstance(encoder, Towers):
        raise UserError(f"--tower {name!r}: the encoder is a single network and has no towers; leave the tower out")
    return encoder.tower(name)
