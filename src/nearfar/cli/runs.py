"""`nearfar runs` and `card`: what runs there are, and a page that tells others of one."""

from __future__ import annotations

import dataclasses
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import tyro

from nearfar.cli.embeddings import insist_files
from nearfar.cli.flags import ForceArg, parsed
from nearfar.cli.printing import print
from nearfar.cli.use import RunArg
from nearfar.files import insist_free
from nearfar.owner import owned
from nearfar.ranges import Checked

FEW = 5
"""Settings that differ and are printed; the page and the table have all."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Runs(Checked):
    """All runs at and below a folder: what differs between their settings, and what came out: the newest result of each
    on its own data, with that before training beside it."""

    folder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER", help="A folder with runs.")] = "runs"
    page: str = ""
    """A page whose columns can be sorted, to write, a file .html."""
    save: str = ""
    """The table with all columns to write, a file .csv."""
    force: ForceArg = False

    def check(self) -> None:
        super().check()
        insist_files(self.page, self.save, force=self.force)


def runs(argv: list[str]) -> int:
    """List runs."""
    asked = parsed(Runs, "runs", argv)
    from nearfar.files import replace_csv
    from nearfar.report.runs import find, listed, overview, page

    made = overview([listed(path, Path(asked.folder)) for path in find(asked.folder)])
    hidden = made.settings[FEW:]
    _print(made.without(hidden).table())
    for note in made.notes:
        print(note)
    if hidden:
        print(f"Not shown, but in --page and --save: {', '.join(hidden)}.")
    if asked.save:
        print(f"Table: {replace_csv(Path(asked.save), made.plain())}")
    if asked.page:
        print(f"Page:  {page(Path(asked.page), asked.folder, made)}")
    return 0


def _print(rows: list[list[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from nearfar.errors import printable

    drawn = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in rows[0]:
        drawn.add_column(printable(name), overflow="fold")
    for row in rows[1:]:
        drawn.add_row(*map(printable, row))
    Console(markup=False, width=None if sys.stdout.isatty() else 200).print(drawn)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card(Checked):
    """A model card of a run, in Markdown, with a head that model hubs read. Nothing is sent anywhere, and nothing is
    made up: licenses and purposes are lines that say FILL IN."""

    run: RunArg
    out: str = ""
    """Where it goes; RUN/README.md by default."""
    force: ForceArg = False


def card(argv: list[str]) -> int:
    """Write a model card."""
    asked = parsed(Card, "card", argv)
    path = Path(asked.out) if asked.out else Path(asked.run) / "README.md"
    insist_free(path, holds="perhaps with what you filled in", force=asked.force)
    from nearfar.report.card import write_card

    with nullcontext() if asked.out or not Path(asked.run).is_dir() else owned(Path(asked.run)):
        lines = write_card(asked.run, path, print)
    print(f"Card: {path}\nTo fill in, before you give it away (search for FILL IN):")
    for line in lines:
        print(f"  {line}")
    return 0
