"""`nearfar runs` and `card`: what runs there are, and a page that tells others of one."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import tyro

from nearfar.cli.embeddings import insist_files
from nearfar.cli.flags import ForceArg, parsed
from nearfar.cli.printing import print
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
