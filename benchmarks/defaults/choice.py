"""The choice of defaults by leaving out: `python -m benchmarks.defaults --table`.

For each set, the configuration is chosen on sets of other sources alone: on those of its nature, where there are any,
else on those that are next to it. What it then gains on the set over the untrained encoder is what counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch

from benchmarks.defaults import measure, sets
from benchmarks.defaults.candidates import CANDIDATES, OLD
from nearfar.evaluation.intervals import Interval, of_answers
from nearfar.files import replace_text

MEASURES = ("knn", "linear")
BUDGETS = (1, 5, 30)
"""CPU-minutes that a run may take."""
MOST = 10.0
"""A gain counts so much at most where a configuration is chosen, so that one set does not decide for all."""
SCREENED = 0.5
"""The budget at which configurations are chosen, in CPU-minutes."""
DOCS = Path(__file__).parents[2] / "docs" / "results.md"
MARKS = "<!-- Made by `python -m benchmarks.defaults --write`. -->", "<!-- End of what it made. -->"
FAMILY = {"gray_photo": "colorful", "ink_drawing": "drawing", "spectrogram": "sign"}
"""Natures that count as another where there is a choice."""
WIDER = {"photo": "mirrored", "colorful": "mirrored", "turned": "mirrored", "drawing": "told", "sign": "told"}
"""The families that are asked where no other source is of the same: may images be mirrored, or is that told?"""


@cache
def runs(name: str, method: str, config: str, minutes: float) -> tuple[dict[str, Any], ...]:
    """The results of all seeds that are there, with those of the untrained encoder of the seed under "untrained"."""
    found = []
    for file in sorted((measure.RESULTS / name).glob(f"{method}-{config}-{minutes:g}min-seed*.json")):
        result = json.loads(file.read_text())
        before = measure.baseline_path(name, "untrained", result["seed"])
        found.append(result | {"untrained": json.loads(before.read_text())})
    return tuple(found)


@cache
def about(name: str) -> dict[str, Any]:
    """What is known of a set: nature, source, sizes, and the groups of its test samples."""
    return json.loads((measure.RESULTS / name / "about.json").read_text())


def point(name: str, method: str, config: str, minutes: float, what: str) -> float | None:
    """The mean gain over the untrained encoder, in points; None where nothing is measured."""
    found = runs(name, method, config, minutes)
    return mean(r[what]["accuracy"] - r["untrained"][what]["accuracy"] for r in found) if found else None


def gain(name: str, method: str, config: str, minutes: float, what: str) -> Interval | None:
    """The same with its interval, over seeds and over test samples, those of one group together."""
    found = runs(name, method, config, minutes)
    if not found:
        return None
    known = about(name)
    after, before = (
        torch.stack([measure.hits(part[what], known["test"]) for part in parts])
        for parts in (found, [r["untrained"] for r in found])
    )
    return of_answers(after, over=before, group=torch.tensor(known["group"]))


def worth(name: str, method: str, config: str, minutes: float) -> float | None:
    """What a configuration is worth on a set: the lesser of its gains of kNN and linear, up to MOST."""
    points = [point(name, method, config, minutes, what) for what in MEASURES]
    known = [value for value in points if value is not None]
    return min(MOST, *known) if len(known) == len(points) else None


def choose(method: str, among: Iterable[str], among_all: Iterable[str]) -> str | None:
    """The configuration that is worth most on the sets `among`, each source counting once; None where none is measured.

    Only those count that were measured on all of `among_all` on which anything was: which these are is no result.
    """
    values = {name: {c: worth(name, method, c, SCREENED) for c in CANDIDATES[method]} for name in among_all}
    known = {name: {c: v for c, v in of.items() if v is not None} for name, of in values.items()}
    known = {name: of for name, of in known.items() if of}
    by_source: dict[str, list[str]] = {}
    for name in set(among) & set(known):
        by_source.setdefault(about(name)["source"], []).append(name)
    everywhere = [c for c in CANDIDATES[method] if all(c in of for of in known.values())]
    if not by_source or not everywhere:
        return None
    return max(everywhere, key=lambda c: mean(mean(known[n][c] for n in names) for names in by_source.values()))


def family(name: str) -> str:
    """The nature of a set, or that for which it counts."""
    nature: str = about(name)["nature"]
    return FAMILY.get(nature, nature)


def left_out(name: str, method: str) -> str | None:
    """The configuration that the sets of other sources choose for this one: those of its family, where there are any,
    else those of the wider one."""
    wide = WIDER[family(name)]
    for alike in (
        [n for n in measured() if family(n) == family(name)],
        [n for n in measured() if WIDER[family(n)] == wide],
    ):
        others = [other for other in alike if about(other)["source"] != about(name)["source"]]
        if config := choose(method, others, alike):
            return config
    return None


def chosen(method: str, nature: str) -> str | None:
    """The configuration that all sets of a family choose: the default."""
    alike = [name for name in measured() if family(name) == nature]
    return choose(method, alike, alike)


@cache
def measured() -> tuple[str, ...]:
    """The sets of which there are results, in the order of `sets`."""
    return tuple(name for name in sets.SETS if (measure.RESULTS / name / "about.json").exists())


def table(methods: Sequence[str], budgets: Sequence[float] = (SCREENED, *BUDGETS)) -> str:
    """Markdown: by method and budget, what was chosen without the set, what it gains, and what the old default does."""
    parts = []
    for method in methods:
        for minutes in budgets:
            rows = [row for name in measured() if (row := _row(name, method, minutes))]
            if rows:
                parts.append(_one(method, minutes, rows))
    return "\n\n".join(parts)


def write(methods: Sequence[str]) -> None:
    """Put the tables between their marks in docs/results.md."""
    text = DOCS.read_text(encoding="utf-8")
    start, end = (text.index(mark) for mark in MARKS)
    replace_text(DOCS, f"{text[:start]}{MARKS[0]}\n\n{table(methods)}\n\n{text[end:]}")


def _row(name: str, method: str, minutes: float) -> dict[str, Any] | None:
    config = left_out(name, method)
    if config is None or not runs(name, method, config, minutes):
        return None
    new = {what: gain(name, method, config, minutes, what) for what in MEASURES}
    old = {what: gain(name, method, OLD, minutes, what) for what in MEASURES}
    found = runs(name, method, config, minutes)
    before = mean(r["untrained"]["knn"]["accuracy"] for r in found)
    return {"name": name, "config": config, "seeds": len(found), "before": before, "new": new, "old": old}


def _one(method: str, minutes: float, rows: list[dict[str, Any]]) -> str:
    lines = [
        f"**{method}, {minutes:g} CPU-minute{'s' if minutes != 1 else ''}**",
        "",
        "| set | nature | chosen without it | seeds | untrained kNN % | kNN | linear | old default, kNN | linear |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [row["new"]["knn"], row["new"]["linear"], row["old"]["knn"], row["old"]["linear"]]
        told = " | ".join("not measured" if cell is None else f"{cell:+.1f}" for cell in cells)
        nature = about(row["name"])["nature"]
        lines.append(f"| {row['name']} | {nature} | {row['config']} | {row['seeds']} | {row['before']:.1f} | {told} |")
    news = [row["new"]["knn"].mean for row in rows]
    olds = [row["old"]["knn"].mean for row in rows if row["old"]["knn"] is not None]
    lost = [row["name"] for row in rows if min(row["new"][what].low for what in MEASURES) <= -1]
    lines += ["", f"Median gain of kNN {median(news):+.1f}" + (f", of the old {median(olds):+.1f}." if olds else ".")]
    if lost:
        lines.append(f"The lower end of an interval is at -1 or below on {', '.join(lost)}.")
    return "\n".join(lines)
