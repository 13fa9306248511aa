"""Several ways side by side: what came out of each, with intervals over seeds, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nearfar.report.html import write
from nearfar.report.results import Results, table

Means = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Of each row, for each column: mean, low and high."""


@dataclass(frozen=True, kw_only=True)
class ComparedPage:
    """by: the command.  sentences: what follows from the numbers."""

    title: str
    by: str
    facts: list[tuple[str, object]]
    sentences: list[str]
    results: Results


def compared(
    target: Path,
    heading: str,
    facts: Mapping[str, object],
    sentences: Sequence[str],
    means: Means,
    *,
    by: str,
    main: str,
) -> Path:
    """Write the page of a comparison.  by: the command.  main: the row that stands out."""
    page = page_data(heading, facts, sentences, means, by=by, main=main)
    return write(target, "compared.html", page, {"curves": [], "map": None})


def page_data(
    heading: str, facts: Mapping[str, object], sentences: Sequence[str], means: Means, *, by: str, main: str
) -> ComparedPage:
    """What the page shows."""
    rows = [
        {
            "name": name,
            "values": {column: {"value": c["mean"], "low": c["low"], "high": c["high"]} for column, c in cells.items()},
        }
        for name, cells in means.items()
    ]
    columns = list(dict.fromkeys(column for row in rows for column in row["values"]))
    best = next(row for row in rows if row["name"] == main)
    return ComparedPage(
        title=heading,
        by=by,
        facts=[(name, value) for name, value in facts.items() if value is not None],
        sentences=list(sentences),
        results=Results("Accuracy", table(columns, rows, best)),
    )
