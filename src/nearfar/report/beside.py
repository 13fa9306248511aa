"""Two runs side by side: which settings differ, what came out, and their curves laid over one another."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearfar.errors import UserError
from nearfar.owner import owned
from nearfar.report.html import write
from nearfar.report.numbers import flat
from nearfar.report.page import title
from nearfar.report.record import Record, read
from nearfar.report.results import Results, table
from nearfar.report.training import curves


@dataclass(frozen=True, kw_only=True)
class BesidePage:
    """names: of the two runs.  titles: what each trained.  settings: key and both values, where they differ."""

    names: tuple[str, str]
    titles: tuple[str, str]
    results: list[Results]
    curves: list[dict[str, Any]]
    settings: list[tuple[str, str, str]]


def beside(run_dir: str | Path, other_dir: str | Path, say: Callable[[str], None] = lambda text: None) -> Path:
    """Write `report-beside-OTHER.html` into the first run's directory, and give its path.

    say: told of each file that cannot be read.
    Raises FileNotFoundError where one is no run directory, ValueError where both are the same.
    """
    one, other = read(run_dir), read(other_dir)
    for record in (one, other):
        for sentence in record.damage:
            say(f"{record.folder}: {sentence}")
    if os.path.samefile(one.folder, other.folder):
        raise UserError(f"{str(run_dir)!r} and {str(other_dir)!r} are the same run: give two")
    page = page_data(one, other)
    # A folder's name may be as long as a file's, which leaves no room for what is put around it.
    name = os.fsdecode(os.fsencode(other.folder.resolve().name)[:150])
    target = one.folder / f"report-beside-{name}.html"
    with owned(one.folder):
        return write(target, "beside.html", page, {"curves": page.curves, "map": None})


def page_data(one: Record, other: Record) -> BesidePage:
    """What the page shows."""
    first, second = one.folder.resolve(), other.folder.resolve()
    names = (first.name, second.name) if first.name != second.name else (str(one.folder), str(other.folder))
    return BesidePage(
        names=names,
        titles=(title(one), title(other)),
        results=_results(one, other, names),
        curves=_overlaid(one, other, names),
        settings=_changed(one, other),
    )


def _results(one: Record, other: Record, names: tuple[str, str]) -> list[Results]:
    """Results that both have: the rows of the two encoders, and of the first's the others."""
    made = []
    for key, first in one.tables.items():
        if (second := other.tables.get(key)) is None:
            continue
        columns = [c for c in first["columns"] if c in second["columns"]]
        mains = (one.main_row(first), other.main_row(second))
        rows = [row for row in first["rows"] if row is not mains[0]]
        rows += [row | {"name": name} for row, name in zip(mains, names, strict=True)]
        same = first.get("protocol") == second.get("protocol")
        made.append(Results(first["title"], table(columns, rows, rows[-2]), same_protocol=same))
    return made


def _overlaid(one: Record, other: Record, names: tuple[str, str]) -> list[dict[str, Any]]:
    """The curves of the first run, each with that of the second where it has one."""
    second = {curve["key"]: curve for curve in curves(other)}
    return [
        curve | {"name": names[0], "beside": {"name": names[1], "x": match["x"], "y": match["y"]}}
        for curve in curves(one)
        if (match := second.get(curve["key"]))
    ]


def _changed(one: Record, other: Record) -> list[tuple[str, str, str]]:
    first, second = (dict(flat(record.config)) for record in (one, other))
    keys = [key for key in dict.fromkeys([*first, *second]) if first.get(key) != second.get(key)]
    return [(key, first.get(key, "–"), second.get(key, "–")) for key in keys]
