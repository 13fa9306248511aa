"""The page of a study on many data sets: a table for each measure, ranks, correlations, and what follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearfar.report.html import write
from nearfar.report.numbers import number
from nearfar.report.results import Results, table


@dataclass(frozen=True, kw_only=True)
class TransferPage:
    """facts: by name.  sentences: what follows.  results: a table for each measure, runs by data sets.
    ranks: a header and rows.  correlations: of each measure of which there are any, a header and rows.
    """

    title: str
    facts: list[tuple[str, object]]
    sentences: list[str]
    results: list[Results]
    ranks: tuple[list[str], list[list[str]]]
    correlations: list[tuple[str, list[str], list[list[str]]]]


def transferred(target: Path, summary: Mapping[str, Any], facts: Mapping[str, object], told: Sequence[str]) -> Path:
    """Write the page.  summary: as `nearfar.studies.across_sets.summarize` gives it.  told: what follows from it."""
    return write(target, "transferred.html", page_data(summary, facts, told), {"curves": [], "map": None})


def page_data(summary: Mapping[str, Any], facts: Mapping[str, object], told: Sequence[str]) -> TransferPage:
    """What the page shows."""
    titles, sets, runs = summary["titles"], summary["sets"], summary["runs"]
    return TransferPage(
        title=f"{len(runs)} run{'s' * (len(runs) != 1)} on {len(sets)} data set{'s' * (len(sets) != 1)}",
        facts=list(facts.items()),
        sentences=list(told),
        results=[Results(title, table(sets, _rows(summary, title))) for title in titles],
        ranks=(
            ["run", *sets, *(f"mean, {title}" for title in titles)],
            [[run, *_ranks(summary, run)] for run in runs],
        ),
        correlations=[
            (title, ["data sets", "runs", "Spearman", "95 % interval", "Pearson", "95 % interval"], _pairs(known))
            for title, known in summary["correlation"].items()
            if known
        ],
    )


def _rows(summary: Mapping[str, Any], title: str) -> list[dict[str, Any]]:
    rows = []
    for name in (*summary["runs"], *summary["baselines"]):
        values = {}
        for data, cells in summary["cells"].get(name, {}).items():
            if title in cells:
                best = summary["best"].get(title, {}).get(data) == name
                cell = cells[title]
                values[data] = {"value": cell["mean"], "low": cell["low"], "high": cell["high"], "best": best}
        rows.append({"name": name, "values": values})
    return [row for row in rows if row["values"]]


def _ranks(summary: Mapping[str, Any], run: str) -> list[str]:
    """By the main measure on each data set, and the mean by each measure."""
    placed = summary["ranks"][summary["main"]]
    means = [summary["mean_rank"].get(title, {}).get(run) for title in summary["titles"]]
    return [
        *("–" if run not in placed[name] else f"{placed[name][run]:g}" for name in summary["sets"]),
        *(number(mean, 1) for mean in means),
    ]


def _pairs(known: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    def told(values: Sequence[float]) -> list[str]:
        value, low, high = (number(v, 2) for v in values)
        return [value, f"{low} to {high}"]

    return [
        [f"{one['of']} and {one['and']}", str(one["runs"]), *told(one["spearman"]), *told(one["pearson"])]
        for one in known
    ]
