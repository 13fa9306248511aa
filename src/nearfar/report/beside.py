"""Two runs side by side: what was set otherwise, what came out, and their curves laid over one another."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nearfar.report import parts
from nearfar.report.page import document, title, write
from nearfar.report.record import Record, read
from nearfar.report.training import curves, training


def beside(run_dir: str | Path, other_dir: str | Path) -> Path:
    """Write `report-beside-OTHER.html` into the first run's directory, and give its path.

    Raises FileNotFoundError where one is no run directory, ValueError where both are the same.
    """
    one, other = read(run_dir), read(other_dir)
    if os.path.samefile(one.folder, other.folder):
        raise ValueError(f"{str(run_dir)!r} and {str(other_dir)!r} are the same run: give two")
    names = _names(one, other)
    drawn = overlaid(one, other, names)
    head = f"{names[0]} beside {names[1]}"
    lines = "".join(f"<p>{parts.text(n)}: {parts.text(title(r))}</p>" for n, r in zip(names, (one, other), strict=True))
    body = [
        f'<header><p class="eyebrow">nearfar report</p><h1>{parts.text(head)}</h1>{lines}</header>',
        *tables(one, other, names),
        training(drawn),
        changed(one, other, names),
    ]
    target = one.folder / f"report-beside-{other.folder.resolve().name}.html"
    return write(target, document(head, [part for part in body if part], {"curves": drawn, "map": None}))


def _names(one: Record, other: Record) -> tuple[str, str]:
    first, second = one.folder.resolve(), other.folder.resolve()
    return (first.name, second.name) if first.name != second.name else (str(one.folder), str(other.folder))


def tables(one: Record, other: Record, names: tuple[str, str]) -> list[str]:
    """Results that both have: the rows of the two encoders, and what both were held against."""
    made = []
    for key, table in one.tables.items():
        if (second := other.tables.get(key)) is None:
            continue
        columns = [c for c in table["columns"] if c in second["columns"]]
        mains = (one.main_row(table), other.main_row(second))
        rows = [row for row in table["rows"] if row is not mains[0]]
        rows += [row | {"name": name} for row, name in zip(mains, names, strict=True)]
        merged = {"title": table["title"], "columns": columns, "rows": rows}
        lead = "Bars and the small numbers are 95 % intervals: where two of them overlap, the difference may be luck."
        same = table.get("protocol") == second.get("protocol")
        warned = "" if same else " The two were measured by different protocols, so compare with care."
        content = (parts.dots(merged, rows[-2]), parts.results_table(merged, rows[-2]))
        made.append(parts.section(f"results-{key}", table["title"], lead + warned, *content))
    if not made:
        why = "The two have no measurement in common. Run `nearfar evaluate` on both, with the same labels."
        made.append(parts.section("results", "Results", "How well each serves.", parts.missing(why)))
    return made


def overlaid(one: Record, other: Record, names: tuple[str, str]) -> list[dict[str, Any]]:
    """The curves of the first run, each with that of the second where it has one."""
    second = {curve["key"]: curve for curve in curves(other)}
    return [
        curve | {"name": names[0], "beside": {"name": names[1], "x": match["x"], "y": match["y"]}}
        for curve in curves(one)
        if (match := second.get(curve["key"]))
    ]


def changed(one: Record, other: Record, names: tuple[str, str]) -> str:
    """A table of the settings that differ."""
    first, second = (dict(parts.flat(record.config)) for record in (one, other))
    keys = [key for key in dict.fromkeys([*first, *second]) if first.get(key) != second.get(key)]
    rows = [(key, first.get(key, "–"), second.get(key, "–")) for key in keys]
    table = parts.plain_table(["Setting", *names], rows) if rows else "<p>All settings are the same.</p>"
    return parts.section("changed", "What was set otherwise", "From the config.yaml of each.", table)
