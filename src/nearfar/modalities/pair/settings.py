"""What can be set about training on pairs of kinds, and which data may hold pairs. Free of torch."""

from __future__ import annotations

import ast
import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from nearfar import modalities, settings
from nearfar.errors import UserError
from nearfar.modalities.recognize import is_columns
from nearfar.ranges import NonNegativeInt
from nearfar.settings import Facts as Facts
from nearfar.settings import meant

ASKED = True
"""Data are taken for pairs only where a setting of this kind is given: any table has two columns."""

ENDINGS = (".npz", ".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet", ".pq", ".jsonl", ".jsonl.gz")

OF_SIDE = ("encoder", "views", "from_run")
"""Settings of all kinds that each side has for itself; the others are those of the pair."""


@dataclass(frozen=True)
class Side:
    """One of the kinds side by side. name: of its tower, by default the kind's.  columns: of the data that hold it."""

    name: str
    kind: str
    columns: tuple[str, ...] = ()


def sides(pair: str) -> tuple[Side, ...]:
    """The sides that `Settings.pair` names. Raises ValueError where it names fewer than two, or an unknown kind."""
    parts = [part.partition("=") for part in re.split(r",(?=[^,=+]+=)", pair)] if "=" in pair else []
    parts = parts or [(part, "", "") for part in pair.split(",") if part]
    known = [name for name in modalities.names() if not asked(name)]
    wanted = f"KIND=COLUMN for each side, such as image=path,text=caption; the kinds are {', '.join(known)}"
    if len(parts) < 2:
        given = f"--pair {pair!r}" if pair else "--pair is missing"
        raise UserError(f"{given}: two sides are wanted, {wanted}, or the path of your own")
    kinds = [kind.strip() for kind, _, _ in parts]
    for kind in kinds:
        if kind not in known and not modalities.is_own(kind):
            raise UserError(f"--pair {pair!r} has the kind {kind!r}; wanted is {wanted}")
    stems = [re.sub(r"\W", "_", Path(kind).stem) for kind in kinds]
    names = [stem if stems.count(stem) == 1 else f"{stem}{stems[: k + 1].count(stem)}" for k, stem in enumerate(stems)]
    columns = [tuple(name.strip() for name in given.split("+") if name.strip()) for _, _, given in parts]
    if any(columns) and not all(columns):
        raise UserError(f"--pair {pair!r} names a column for one side and none for another: {wanted}")
    return tuple(map(Side, names, kinds, columns))


def asked(kind: str) -> bool:
    """Whether data are of a kind of the library only where a setting of that kind is given."""
    return getattr(modalities.entry(kind), "ASKED", False)


@dataclass(frozen=True, kw_only=True)
class Settings(settings.Settings):
    """How to train."""

    pair: str = ""
    """The sides of a sample, KIND=COLUMN each, such as image=path,text=caption, or text=en,text=de. Without columns,
    such as image,text: of a folder whose files of one stem belong together, or of arrays in that order."""
    encoder: str = ""
    """The network of each side, such as image=conv4,text=bert-2x128; by default that of the kind."""
    views: str = ""
    """The views of each side, such as image=clip,text=deletion; by default those that change little, so that what one
    side says of the other stays true."""
    view_count: NonNegativeInt = 1
    """Views of each sample, and of each of its sides."""
    sides: tuple[str, ...] = ()
    """What else is set of a side, SIDE.SETTING=VALUE, such as image.size=32 text.length=16 image.from_run=runs/one."""
    space: NonNegativeInt = 256
    """Width of the space that all sides share, by a linear layer behind each network; 0 leaves each network its own."""
    shared: bool = False
    """One network for all sides, which must be of one kind."""

    def check(self) -> None:
        super().check()
        if self.pair:
            self.each()

    def each(self) -> dict[str, settings.Settings]:
        """The settings of each side by its name. Raises ValueError for those that it does not have."""
        named = sides(self.pair)
        if self.shared and len({side.kind for side in named}) > 1:
            raise UserError(f"--shared: the sides of --pair {self.pair!r} are of several kinds; one network takes one")
        given = {side.name: {} for side in named}
        for flag, setting, value in (("encoder", "encoder", self.encoder), ("views", "views", self.views)):
            for name, text in _by_side(value, list(given), f"--{flag}").items():
                given[name][setting] = text
        for text in self.sides:
            place, mark, value = text.partition("=")
            name, dot, setting = place.partition(".")
            if not (mark and dot and name in given):
                of = ", ".join(given)
                raise UserError(f"--sides {text!r}: wanted is SIDE.SETTING=VALUE, and the sides are {of}")
            given[name][setting] = value
        made = {}
        for side in named:
            kind: Any = modalities.entry(side.kind).Settings
            hints, own = get_type_hints(kind), {f.name for f in dataclasses.fields(kind)}
            able = own - {f.name for f in dataclasses.fields(settings.Settings)} | set(OF_SIDE)
            if strange := [name for name in given[side.name] if name not in able]:
                hint = meant(strange[0], able) if strange[0] not in own else ": it is one for all sides"
                raise UserError(f"--sides {side.name}.{strange[0]}: {side.name} has no such setting of its own{hint}")
            values: dict[str, Any] = {name: _value(text, hints[name]) for name, text in given[side.name].items()}
            if faithful := getattr(modalities.entry(side.kind), "FAITHFUL", ""):
                values = {"views": faithful} | values
            of_all = ("seed", "device", "keep_words", "split", "view_count")
            common = {name: getattr(self, name) for name in of_all}
            made[side.name] = kind(**common | {"labels": "none"} | values)
        return made


def _by_side(given: str, names: list[str], flag: str) -> dict[str, str]:
    """What `image=conv4,text=bert` says of each side; a value may hold commas."""
    if not given:
        return {}
    marks = "|".join(map(re.escape, names))
    parts = [part.partition("=") for part in re.split(rf",(?=(?:{marks})=)", given)]
    if odd := [name for name, mark, value in parts if name not in names or not value]:
        raise UserError(
            f"{flag} {given!r}: SIDE=NAME is wanted for the sides {', '.join(names)}, and {odd[0]!r} is none"
        )
    return {name: value for name, _, value in parts}


def _value(text: str, hint: Any) -> Any:
    if hint is str:
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def recognizes(data: Any) -> bool:
    """Whether data may be pairs: a table, a .npz file, a folder, a mapping, or a tuple of arrays or lists."""
    if isinstance(data, str | os.PathLike):
        return Path(data).is_dir() or str(data).lower().endswith(ENDINGS)
    return isinstance(data, Mapping | tuple) or is_columns(data)


def study_encoder() -> str:
    """Each side has its own."""
    return ""


def insist_encoder(name: str) -> None:
    """Which names there are depends on the sides, which `insist_settings` knows."""


def recipe_for(data: Any) -> str:
    """The recipes of papers that suit the data."""
    return "pairs"


def measured_for(data: Any) -> str:
    """The recipes that were chosen by measurement: there are none yet."""
    return ""
