"""Several encoders by name, each for its own part of a sample, such as an image and its caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.distributed import normalize
from nearfar.errors import UserError
from nearfar.method import Encoder, Stage, Traced, WithCells
from nearfar.nn.apply import Apply

TOWERS = "towers"
"""What the spec of towers says in the place of a kind."""


class Towers(Encoder):
    """Encoders side by side: a view is a dict with an entry for each tower, and what they give stands in one row.

    towers: the encoders by name; in the place of one the name of another tower, which the two names then share.
    dim: the sum of their widths.
    """

    def __init__(self, towers: Mapping[str, Encoder | str]) -> None:
        super().__init__()
        if not towers:
            raise UserError("towers are one encoder or more, by name, such as Towers({'left': a, 'right': b}): got 0")
        own = {name: encoder for name, encoder in towers.items() if not isinstance(encoder, str)}
        self.towers = nn.ModuleDict(own)
        self.of = {name: encoder if isinstance(encoder, str) else name for name, encoder in towers.items()}
        self.dim = sum(self.tower(name).dim for name in self.of)
        self.spec = {
            "kind": TOWERS,
            "towers": {name: own[name].spec if name in own else self.of[name] for name in self.of},
        }
        self.notes = [f"{name}: {note}" for name, encoder in own.items() for note in encoder.notes]

    def tower(self, name: str) -> Encoder:
        """One of the encoders. Raises ValueError where none has that name."""
        if name not in self.of:
            raise UserError(f"there is no tower {name!r}: the towers are {', '.join(self.of)}")
        return self.towers[self.of[name]]  # pyright: ignore[reportReturnType] (all of them are encoders)

    def forward(self, view: Mapping[str, Any]) -> Tensor:
        if missing := [name for name in self.of if name not in view]:
            raise UserError(f"a view for each of {', '.join(self.of)} is wanted, and {missing[0]!r} is missing")
        return torch.cat([self.tower(name)(view[name]) for name in self.of], 1)  # N x dim

    def example(self, n: int, generator: torch.Generator | None = None) -> dict[str, Any]:
        return {name: self.tower(name).example(n, generator) for name in self.of}

    def streams(self) -> list[Stage]:
        """The towers, each of which takes the whole view and sees its part."""
        return [Stage(Apply(itemgetter(name)), self.tower(name), dim=self.tower(name).dim) for name in self.of]

    def _mapping(self) -> list[Stage]:
        raise UserError(
            f"an encoder with several towers has no map of its own: take one (--tower), {' or '.join(self.of)}"
        )

    def preparation(self) -> dict[str, Any]:
        return {name: self.tower(name).preparation() for name in self.of}


class Joint(Encoder):
    """An encoder and a linear layer behind it, into a space that it shares with others: N x dim.

    Its spec is that of the encoder, with the width of that space as "joint".
    """

    def __init__(self, trunk: Encoder, dim: int) -> None:
        super().__init__()
        self.trunk, self.joint = trunk, nn.Linear(trunk.dim, dim, bias=False)
        self.dim, self.spec, self.notes = dim, {**trunk.spec, "joint": dim}, trunk.notes

    def forward(self, view: Any) -> Tensor:
        return self.joint(self.trunk(view))

    def looked_at(self) -> nn.Module:
        return self.trunk.looked_at()

    def example(self, n: int, generator: torch.Generator | None = None) -> Any:
        return self.trunk.example(n, generator)

    def maps(self, view: Any) -> list[Tensor]:
        return self.trunk.maps(view)

    @property
    def map_dim(self) -> int:
        return self.trunk.map_dim

    def with_map(self, view: Any) -> tuple[Tensor, Tensor]:
        row, maps = self.trunk.with_map(view)
        return self.joint(row), maps

    def captioner(self, reads: int, *, width: int = 128, layers: int = 2) -> nn.Module:
        return self.trunk.captioner(reads, width=width, layers=layers)

    def traced(self) -> Traced:
        inner = self.trunk.traced()
        return replace(inner, behind=(*inner.behind, self.joint))

    def network(self) -> nn.Module:
        return nn.ModuleDict({"trunk": self.trunk.network(), "joint": self.joint})

    def source(self) -> tuple[list[str], bool] | None:
        known = self.trunk.source()
        if known is None:
            return None
        layer = f"torch.nn.Linear({self.trunk.dim}, {self.dim}, bias=False)"
        return [*known[0], f'net = torch.nn.ModuleDict({{"trunk": net, "joint": {layer}}})'], False

    def encode_lines(self) -> list[str]:
        behind = ["", "", "encode_trunk = encode", "", "", "def encode(x):", "    return joint(encode_trunk(x))"]
        return ['net, joint = net["trunk"], net["joint"]', *self.trunk.encode_lines(), *behind]

    def publish(self, folder: Path, behind: nn.Linear | None = None) -> list[Path]:
        return self.trunk.publish(folder, self.joint)

    def preparation(self) -> dict[str, Any]:
        return self.trunk.preparation()


class Reading:
    """The networks of towers of which one is written, word by word, of what the others give.

    write: the name of that one, by default the last.  maps: of the others, see `WithCells`.  width: of what is read.
    Raises ValueError for an encoder without towers, a name that none has, and maps of several widths.
    """

    def __init__(self, encoder: Encoder, write: str, *, maps: bool) -> None:
        if not isinstance(encoder, Towers):
            raise UserError("sentences are written of another side: give pairs, such as --pair image=path,text=caption")
        self.names, self.maps, self.write = list(encoder.of), maps, write or list(encoder.of)[-1]
        self.others = [name for name in self.names if name != self.write]
        self.dim = encoder.tower(self.write).dim
        widths = {encoder.tower(name).map_dim for name in self.others} if maps else {self.dim}
        if len(widths) > 1:
            raise UserError(f"--maps: they have {' and '.join(map(str, widths))} channels, and one decoder reads them")
        self.width = widths.pop()

    def writer(self, encoder: Any, *, width: int, layers: int) -> nn.Module:
        """The decoder. Raises ValueError where the side that is to be written sees no words."""
        try:
            return encoder.tower(self.write).captioner(self.width, width=width, layers=layers)
        except UserError as error:
            raise UserError(f"{error}: name the side that holds them by --write, of {', '.join(self.names)}") from error

    def streams(self, encoder: Any) -> list[Stage]:
        """The towers, for `Method.embed_streams`, those that are read with their maps, if these are wanted."""
        towers = [encoder.tower(name) for name in self.names]
        if self.maps:
            towers = [t if n == self.write else WithCells(t) for n, t in zip(self.names, towers, strict=True)]
        return [Stage(Apply(itemgetter(n)), t, dim=t.dim) for n, t in zip(self.names, towers, strict=True)]

    def apart(self, made: Sequence[Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor | None]]:
        """What the streams gave, by name: unit rows, N x dim, and maps, N x M x width, None where none are wanted."""
        rows = {name: normalize(out[:, : self.dim]) for name, out in zip(self.names, made, strict=True)}
        maps = dict(zip(self.names, made, strict=True)) if self.maps else {}
        return rows, {
            name: maps[name][:, self.dim :].unflatten(1, (-1, self.width)) if maps else None for name in self.others
        }

    def seen(self, views: Sequence[Any]) -> Any:
        """The view of the side that is written, which `embed_streams` lets it see."""
        return views[self.names.index(self.write) % len(views)][self.write]


def trunk(encoder: Encoder) -> Encoder:
    """An encoder without the layer into a space that it shares with others, if it has one."""
    return encoder.trunk if isinstance(encoder, Joint) else encoder


def pick_tower(encoder: Encoder, name: str) -> Encoder:
    """The tower of that name, or for the name "" the encoder as it is.

    Raises ValueError for a name that no tower has, and where the encoder has no towers.
    """
    if not name:
        return encoder
    if not isinstance(encoder, Towers):
        raise UserError(f"--tower {name!r}: the encoder is a single network and has no towers; leave the tower out")
    return encoder.tower(name)
