"""Several ways side by side: what came out of each, with intervals over seeds, and what cannot be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nearfar.report import parts
from nearfar.report.page import document, write

LEAD = (
    "Each row is the mean over seeds; bars and the small numbers are its 95 % t-interval. What is said above goes by "
    "differences seed by seed, which tell more than whether two bars overlap."
)


def compared(
    target: Path,
    heading: str,
    facts: Mapping[str, object],
    sentences: Sequence[str],
    means: Mapping[str, Mapping[str, Mapping[str, float]]],
    *,
    by: str,
    main: str,
) -> Path:
    """Write the page of a comparison.

    means: of each row, for each column: mean, low and high.  by: the command.  main: the row that stands out.
    """
    rows = {
        name: {column: {"value": c["mean"], "low": c["low"], "high": c["high"]} for column, c in cells.items()}
        for name, cells in means.items()
    }
    table: dict[str, Any] = {
        "columns": list(dict.fromkeys(column for cells in rows.values() for column in cells)),
        "rows": [{"name": name, "values": cells} for name, cells in rows.items()],
    }
    said = "".join(f"<li>{parts.text(sentence)}</li>" for sentence in sentences)
    head = f"<h1>{parts.text(heading)}</h1>{parts.facts(facts.items())}"
    best = next(row for row in table["rows"] if row["name"] == main)
    body = [
        f'<header><p class="eyebrow">nearfar {by}</p>{head}</header>',
        parts.section(
            "said", "What can be told", "At this budget, and on these data.", f'<ul class="notes">{said}</ul>'
        ),
        parts.section("results", "Accuracy", LEAD, parts.dots(table, best), parts.results_table(table, best)),
    ]
    return write(target, document(heading, body, {"curves": [], "map": None}))
