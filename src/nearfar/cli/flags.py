"""From the words of a call to a checked dataclass; and from what was done to the words of the next call."""

from __future__ import annotations

import dataclasses
import os
import shlex
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import tyro

from nearfar.errors import UserError
from nearfar.ranges import Checked, PositiveInt, flag, unchecked
from nearfar.settings import SYNONYMS, Which

C = TypeVar("C", bound=Checked)

CheckpointArg = Annotated[
    Which,
    tyro.conf.arg(
        metavar="last|best|auto|EPOCH",
        help="Which of the run: last; best by the kNN probe; auto, by scores without labels, which `nearfar "
        "checkpoints` shows; or an epoch that was kept (--keep-every).",
    ),
]
ForceArg = Annotated[bool, tyro.conf.arg(help="Replace a file that is there already.")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnDevice(Checked):
    """Where an encoder computes, for commands that embed."""

    device: str = "auto"
    """auto takes a GPU on which torch can compute, if there is one; else cpu, cuda, cuda:1."""
    batch: PositiveInt = 256
    """Samples that pass the encoder at a time."""


def parsed(kind: type[C], name: str, argv: Sequence[str], *, description: str | None = None) -> C:
    """The flags of `nearfar NAME`. Exits where they are unknown or no numbers, or where help is asked for.

    Raises ValueError for a value that is out of its range, and for a flag that has another name here.
    """
    known, argv = set(_names(kind)), gathered(argv)
    for word in argv:
        given = word[2:].partition("=")[0].replace("-", "_") if word.startswith("--") else ""
        if given not in known and SYNONYMS.get(given) in known:
            raise UserError(f"there is no flag {word.partition('=')[0]}: it is {flag(SYNONYMS[given])} here")
    with unchecked():  # tyro would show an error of a value in a box, whose lines cut it anywhere
        call = tyro.cli(
            kind,
            args=argv,
            prog=f"nearfar {name}",
            description=description,
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
        )
    call.check()
    return call


def gathered(argv: Sequence[str]) -> list[str]:
    """The words of a call with all that --set is given at the end, behind one --set: so it can be given again and
    again, and does not take DATA for one of its words."""
    words, given, inside = [], [], False
    for word in argv:
        inside = word == "--set" or word.startswith("--set=") or (inside and "=" in word and not word.startswith("-"))
        if word.startswith("--set="):
            given.append(word.removeprefix("--set="))
        elif inside and word != "--set":
            given.append(word)
        elif not inside:
            words.append(word)
    return [*words, "--set", *given] if given or "--set" in argv else words


def _names(kind: type) -> Iterator[str]:
    """The fields of a dataclass, and those of the dataclasses in it."""
    for name, hint in typing.get_type_hints(kind).items():
        yield from _names(hint) if dataclasses.is_dataclass(hint) and isinstance(hint, type) else [name]


def command(name: str, *words: str | os.PathLike[str], flags: Mapping[str, str | int | bool]) -> str:
    """A call of `nearfar NAME` as it can be pasted into a shell. flags: those that are empty or False are left out."""
    given = [[flag(key)] if value is True else [flag(key), str(value)] for key, value in flags.items() if value]
    return shlex.join(["nearfar", name, *map(from_here, words), *(word for pair in given for word in pair)])


def from_here(path: str | os.PathLike[str]) -> str:
    """A path as it is seen from here: relative, where it lies below, and never taken for a flag."""
    text = os.fspath(path)
    if os.path.isabs(text) and Path(text).is_relative_to(Path.cwd()):
        text = os.path.relpath(text)
    return os.path.join(os.curdir, text) if text.startswith("-") else text
