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
    table: Mapping[str, Any],
    *,
    by: str,
    main: int = 0,
) -> Path:
    """Write the page of a comparison.

    table: of the form of results/NAME.json.  by: the command that made it.  main: the row that stands out.
    """
    said = "".join(f"<li>{parts.text(sentence)}</li>" for sentence in sentences)
    head = f"<h1>{parts.text(heading)}</h1>{parts.facts(facts.items())}"
    best = table["rows"][main]
    body = [
        f'<header><p class="eyebrow">nearfar {by}</p>{head}</header>',
        parts.section(
            "said", "What can be told", "At this budget, and on these data.", f'<ul class="notes">{said}</ul>'
        ),
        parts.section("results", "Accuracy", LEAD, parts.dots(table, best), parts.results_table(table, best)),
    ]
    return write(target, document(heading, body, {"curves": [], "map": None}))
