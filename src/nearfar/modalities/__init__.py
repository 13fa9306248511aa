"""Kinds of data: one folder each. What can be asked without torch is asked here; `kind.of` gives the kind itself.

A kind is named by its folder, such as "image", or by the path of a file or folder of the user's own, which holds a
class that extends `nearfar.Kind`.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection
from dataclasses import fields
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Protocol

from nearfar.errors import UserError
from nearfar.settings import Facts, Settings

UNKNOWN = "image"
"""What data are taken for that no kind recognizes: its reader says best what is wrong with them."""


class Entry(Protocol):
    """What is asked of a kind before anything is opened."""

    Settings: ClassVar[type[Settings]]
    Facts: ClassVar[type[Facts]]

    def recognizes(self, data: Any) -> bool: ...
    def recipe_for(self, data: Any) -> str: ...
    def measured_for(self, data: Any) -> str: ...
    def study_encoder(self) -> str: ...
    def insist_encoder(self, name: str) -> None: ...


def names() -> list[str]:
    """The kinds of the library."""
    return list(_names())


@cache
def _names() -> tuple[str, ...]:
    return tuple(sorted(path.parent.name for path in Path(__file__).parent.glob("*/kind.py")))


def is_own(name: str) -> bool:
    """Whether a kind is named by a path of the user's own."""
    return name.endswith(".py") or os.sep in name


def entry(name: str) -> Entry:
    """What can be asked of a kind without torch. Raises ValueError where there is none of that name."""
    if is_own(name):
        from nearfar.modalities.kind import of

        return of(name)
    if name not in names():
        raise UserError(f"there is no kind {name!r}; there are {', '.join(names())}, or the path of your own")
    return import_module(f"nearfar.modalities.{name}.settings")  # pyright: ignore[reportReturnType] (a module)


def insist_samples(data: str | os.PathLike[str]) -> None:
    """Raise ValueError where DATA are the directory of a run, whose images are not those to learn from."""
    path = Path(data)
    if (path / "config.yaml").is_file() and any((path / name).exists() for name in ("encoder.json", "checkpoints")):
        run = shlex.quote(str(path))
        raise UserError(
            f"{str(data)!r} is a run, and DATA to look at are wanted, such as a folder of images. With a run: `nearfar "
            f"report {run}`, `nearfar export {run}`, and with DATA `nearfar evaluate {run} DATA`, embed, finetune and "
            f"label-plan; `nearfar train METHOD DATA --from-run {run}` begins with its weights"
        )


def kind_of(data: Any, given: Collection[str] = ()) -> str:
    """The kind of the library that recognizes the data; of several the one that has most of those settings that are
    given and that not every kind has, or else the first. A kind that has ASKED is taken only where a setting of its own
    is given. A path where nothing is belongs to the kind that alone has a setting among those given: it says what is
    wrong with it. Where no data are given, only settings tell."""
    if isinstance(data, str | os.PathLike) and data and not Path(data).exists():
        owners = [[name for name in names() if setting in own_settings(name)] for setting in given]
        if alone := [of[0] for of in owners if len(of) == 1]:
            return alone[0]
    none = isinstance(data, str) and not data
    able = names() if none else [name for name in names() if entry(name).recognizes(data)]
    counts = {name: len(own_settings(name).intersection(given)) for name in able}
    named = sorted(filter(counts.get, able), key=lambda name: -counts[name])
    asked = [name for name in named if getattr(entry(name), "ASKED", False)]
    unasked = [] if none else [name for name in able if not getattr(entry(name), "ASKED", False)]
    return [*asked, *named, *unasked, UNKNOWN][0]


def own_settings(name: str) -> set[str]:
    """The settings of a kind that not every kind has."""
    every = {field.name for field in fields(Settings)}
    return {field.name for field in fields(entry(name).Settings)} - every
