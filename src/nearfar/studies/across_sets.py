"""What follows from encoders that were measured on several data sets: ranks, what is ahead of what, correlations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, mean
from typing import Any

import torch

from nearfar.data.labels import some
from nearfar.errors import counted
from nearfar.evaluation.intervals import Interval, apart, judged, of_answers
from nearfar.evaluation.protocol import unpacked
from nearfar.evaluation.similarity import pearson, ranks, spearman

LINEAR, KNN, TUNED = "linear (%)", "kNN (%)", "fine-tuned (%)"
MAIN = LINEAR
"""By which runs are ordered, and sentences are told."""
FEWEST = 4
"""Runs without which no correlation is told: three lie on a line too easily."""

Cell = dict[str, Any]
"""accuracy with low and high; of: a digest of the tested samples and their labels; and, where it is known, right: which
answers to these are right."""
Summary = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Told:
    """What was measured.

    cells: by row, data set and title.  sets, trained, raw: names, in order.
    untrained, architecture: of each untrained row, and of each run, what runs of one untrained row have in common.
    groups: of tested samples, by the digest `of` them and their labels; None where there are none.
    refused: by data set and run, why it was not measured.  seen: likewise, how many of how many tested samples were in
    pre-training, and in what way.  own: of runs, the data of their pre-training and accuracies on them, by title.
    """

    cells: Mapping[str, Mapping[str, Mapping[str, Cell]]]
    sets: Sequence[str]
    trained: Sequence[str]
    untrained: Mapping[str, str]
    architecture: Mapping[str, str]
    raw: Sequence[str]
    groups: Mapping[str, Sequence[int] | None]
    refused: Mapping[str, Mapping[str, str]]
    seen: Mapping[str, Mapping[str, tuple[int, int, str]]]
    own: Mapping[str, Mapping[str, Any]]

    def cell(self, row: str, name: str, title: str) -> Cell | None:
        return self.cells.get(row, {}).get(name, {}).get(title)


def title(result: str) -> str:
    """The title of a result of `nearfar.evaluation.evaluate.evaluate`."""
    if result.startswith("few_labels_"):
        return f"{counted(int(result.rpartition('_')[2]), 'labels')} a class (%)"
    return {"linear": LINEAR, "knn": KNN}[result]


def summarize(told: Told) -> Summary:
    """Fit for JSON. Ranks are among the runs; a mean rank is over the data sets on which all runs were measured."""
    every = [title for row in told.cells.values() for cells in row.values() for title in cells]
    order = {LINEAR: 0, KNN: 1, TUNED: 3}
    titles = sorted(dict.fromkeys(every), key=lambda title: (order.get(title, 2), len(title), title))
    placed = {title: _ranks(told, title) for title in titles}
    whole = [name for name in told.sets if all(told.cell(run, name, MAIN) for run in told.trained)]
    means = {
        title: {run: mean(of[name][run] for name in whole) if whole else None for run in told.trained}
        for title, of in placed.items()
        if all(run in of.get(name, {}) for name in whole for run in told.trained)
    }

    def place(run: str) -> tuple[float, float]:
        known = [cell["accuracy"] for name in told.sets if (cell := told.cell(run, name, MAIN))]
        return means.get(MAIN, {}).get(run) or math.inf, -mean(known or [0.0])

    runs = sorted(told.trained, key=place)
    best = {title: {name: min(of, key=lambda run: (of[run], runs.index(run))) for name, of in sets.items() if of}
            for title, sets in placed.items()}  # fmt: skip
    return {
        "main": MAIN,
        "titles": titles,
        "sets": list(told.sets),
        "runs": runs,
        "baselines": [*told.raw, *told.untrained],
        "cells": {row: {name: _intervals(of) for name, of in sets.items()} for row, sets in told.cells.items()},
        "best": best,
        "behind": {
            title: {
                name: {run: found for run in runs if (found := _gain(told, name, title, leader, run)) and run != leader}
                for name, leader in leaders.items()
            }
            for title, leaders in best.items()
        },
        "over": {
            run: {
                name: {
                    title: {base: found for base in _bases(told, run) if (found := _gain(told, name, title, run, base))}
                    for title in titles
                }
                for name in told.sets
            }
            for run in runs
        },
        "ranks": placed,
        "ranked_sets": whole,
        "mean_rank": means,
        "correlation": {title: _correlations(told, title) for title in titles},
        "refused": {name: dict(of) for name, of in told.refused.items() if of},
        "seen": {name: {run: list(n) for run, n in of.items() if n[0]} for name, of in told.seen.items()},
        "own": {run: dict(own) for run, own in told.own.items()},
    }  # fmt: skip


def _intervals(cells: Mapping[str, Cell]) -> dict[str, dict[str, float]]:
    return {title: _interval(cell)._asdict() for title, cell in cells.items()}


def _interval(cell: Cell) -> Interval:
    return Interval(cell["accuracy"], cell["low"], cell["high"])


def _bases(told: Told, run: str) -> list[str]:
    """The rows that a run is held against."""
    return [*told.raw, *(row for row, which in told.untrained.items() if which == told.architecture[run])]


def _ranks(told: Told, title: str) -> dict[str, dict[str, float]]:
    """By data set, the rank of each run that was measured on it, from 1; of equals the mean."""
    found = {}
    for name in told.sets:
        values = {run: cell["accuracy"] for run in told.trained if (cell := told.cell(run, name, title))}
        placed = ranks(-torch.tensor(list(values.values()), dtype=torch.float64)).tolist() if values else []
        found[name] = dict(zip(values, placed, strict=True))
    return found


def _gain(told: Told, name: str, title: str, ours: str, theirs: str) -> dict[str, Any] | None:
    """What one row has over another on a data set, in points, and what that says; paired where it may be."""
    one, other = told.cell(ours, name, title), told.cell(theirs, name, title)
    if one is None or other is None:
        return None
    answers = [unpacked(cell["right"]) for cell in (one, other) if "right" in cell and one["of"] == other["of"]]
    seeds = {len(right) for right in answers}
    # Two of three seeds have no partners among the three; the one of what takes no seed is that of all.
    if paired := len(answers) == 2 and (len(seeds) == 1 or 1 in seeds):
        group = told.groups.get(one["of"])
        units = None if group is None else torch.tensor(group[: answers[0].shape[1]])
        gain = of_answers(answers[0], over=answers[1], group=units)
    else:
        gain = apart(_interval(one), _interval(other))
    return {**gain._asdict(), "judged": judged(gain), "paired": paired}


def _correlations(told: Told, title: str) -> list[dict[str, Any]]:
    """Of accuracies over runs, between each two data sets, and of the data of pre-training with each."""
    columns: dict[str, dict[str, float]] = {}
    for data in dict.fromkeys(str(own["data"]) for own in told.own.values()):
        own = {run: own["values"].get(title) for run, own in told.own.items() if own["data"] == data}
        columns[f"pre-training on {data}"] = {run: value for run, value in own.items() if value is not None}
    first = list(columns)
    for name in told.sets:
        columns[name] = {run: cell["accuracy"] for run in told.trained if (cell := told.cell(run, name, title))}
    found = []
    names = list(columns)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            both = [run for run in told.trained if run in columns[a] and run in columns[b]]
            if len(both) >= FEWEST and b not in first:
                x, y = (torch.tensor([columns[name][run] for run in both], dtype=torch.float64) for name in (a, b))
                found.append({"of": a, "and": b, "runs": len(both), **correlation(x.tolist(), y.tolist())})
    return found


def correlation(x: Sequence[float], y: Sequence[float]) -> dict[str, list[float]]:
    """Spearman's and Pearson's correlation, each with its 95 % interval by Fisher's z: value, low, high.

    Of Spearman's the variance is that of Bonett and Wright (2000), and equal orders count as if two neighbors had been
    exchanged, or a few runs in one order would leave no doubt.  x, y: four values or more.
    """
    a, b = (torch.tensor(values, dtype=torch.float64) for values in (x, y))
    n, made = len(x), {}
    for name, of in (("spearman", spearman), ("pearson", pearson)):
        value = float(of(a, b))
        most, spread = (1 - 12 / (n**3 - n), 1 + value**2 / 2) if name == "spearman" else (1 - 1e-12, 1.0)
        z, half = math.atanh(max(-most, min(most, value))), NormalDist().inv_cdf(0.975) * math.sqrt(spread / (n - 3))
        made[name] = [value, min(value, math.tanh(z - half)), max(value, math.tanh(z + half))]
    return made


def heading(summary: Summary) -> str:
    """What stands above the table in the terminal."""
    return (
        f"{summary['main']} of {counted(len(summary['runs']), 'runs')} on "
        f"{counted(len(summary['sets']), 'data sets')}; * best, ~ not shown to be behind it"
    )


def plain(summary: Summary, title: str = MAIN) -> str:
    """The table of one measure as text: runs by mean rank, then what they are held against."""
    head = ["run", *summary["sets"], "mean rank"]
    rows = [
        [row, *(_short(summary, title, row, name) for name in summary["sets"]), _rank(summary, title, row)]
        for row in (*summary["runs"], *summary["baselines"])
    ]
    width = [max(len(line[i]) for line in [head, *rows]) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width[i]) if i == 0 else cell.rjust(width[i]) for i, cell in enumerate(line)).rstrip()
        for line in [head, *rows]
    ]
    rule = "-" * max(map(len, lines))
    count = len(summary["runs"])
    return "\n".join([lines[0], rule, *lines[1 : count + 1], rule, *lines[count + 1 :]])


def markdown(summary: Summary, title: str = MAIN) -> str:
    """The same in Markdown, with 95 % intervals; the best run of a data set is bold, and those that are not shown to be
    behind it have a ~."""
    head = ["run", *summary["sets"], "mean rank"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in (*summary["runs"], *summary["baselines"]):
        cells = []
        for name in summary["sets"]:
            cell = summary["cells"].get(row, {}).get(name, {}).get(title)
            text = "–" if cell is None else f"{Interval(**cell):.1f}"
            mark = _mark(summary, title, row, name)
            cells.append(f"**{text}**" if mark == "*" else text + mark)
        lines.append(f"| {' | '.join([row, *cells, _rank(summary, title, row)])} |")
    return "\n".join(lines)


def _short(summary: Summary, title: str, row: str, name: str) -> str:
    cell = summary["cells"].get(row, {}).get(name, {}).get(title)
    return "– " if cell is None else f"{cell['mean']:.1f}{_mark(summary, title, row, name) or ' '}"


def _mark(summary: Summary, title: str, row: str, name: str) -> str:
    """* of the best run, ~ of one that is not shown to be behind it."""
    if summary["best"].get(title, {}).get(name) == row:
        return "*"
    gap = summary["behind"].get(title, {}).get(name, {}).get(row)
    return "~" if gap is not None and gap["judged"] != "ahead" else ""


def _rank(summary: Summary, title: str, row: str) -> str:
    value = summary["mean_rank"].get(title, {}).get(row)
    return "" if value is None else f"{value:.1f}"


def lines(summary: Summary) -> list[Sequence[str]]:
    """All values as a long table: a header, and a row of each cell and measure."""
    rows: list[Sequence[str]] = [("run", "data set", "measure", "accuracy", "low", "high", "rank", "against the best")]
    for row in (*summary["runs"], *summary["baselines"]):
        for name in summary["sets"]:
            for title, cell in summary["cells"].get(row, {}).get(name, {}).items():
                rank = summary["ranks"][title].get(name, {}).get(row)
                gap = summary["behind"].get(title, {}).get(name, {}).get(row)
                said = "best" if summary["best"][title].get(name) == row else ""
                if gap:
                    said = {"ahead": "behind", "behind": "ahead"}.get(gap["judged"]) or str(gap["judged"])
                numbers = (f"{cell[end]:.2f}" for end in ("mean", "low", "high"))
                rows.append((row, name, title, *numbers, "" if rank is None else f"{rank:g}", said))
    return rows


def sentences(summary: Summary) -> list[str]:
    """What can be told by the main measure: of each data set, of each run, of the data sets among each other; what was
    not measured; and what had been seen."""
    title = summary["main"]
    told = [_of_set(summary, title, name) for name in summary["sets"] if name in summary["best"].get(title, {})]
    told += [_of_run(summary, title, run) for run in summary["runs"]]
    if known := summary["correlation"].get(title):
        told.append(_of_correlations(known))
    elif len(summary["sets"]) > 1:
        told.append(f"Correlations between data sets are told from {FEWEST} runs on.")
    told += [_of_seen(name, of) for name, of in summary["seen"].items() if of]
    return [*filter(None, told), *refusals(summary["refused"])]


def _of_set(summary: Summary, title: str, name: str) -> str:
    leader, measure = summary["best"][title][name], title.removesuffix(" (%)")
    gaps = summary["behind"][title][name]
    value = summary["cells"][leader][name][title]["mean"]
    text = f"{name}: {leader} is best in {measure}, {value:.1f} %"
    behind = [run for run, gap in gaps.items() if gap["judged"] == "ahead"]
    if near := [run for run in gaps if run not in behind]:
        text += f"; not shown to be behind it: {', '.join(near)}"
    return text + (f"; behind it: {', '.join(behind)}" if behind else "") + "."


def _of_run(summary: Summary, title: str, run: str) -> str:
    over = summary["over"][run]
    parts = []
    for base in summary["baselines"]:
        found = {name: of[title][base]["judged"] for name, of in over.items() if base in of.get(title, {})}
        if found:
            ahead = [name for name, said in found.items() if said == "ahead"]
            behind = [name for name, said in found.items() if said == "behind"]
            text = f"ahead of {base} on {len(ahead)} of {counted(len(found), 'data sets')}"
            parts.append(text + (f", behind it on {', '.join(behind)}" if behind else ""))
    return f"{run}: {'; '.join(parts)}." if parts else ""


def _of_correlations(known: Sequence[Mapping[str, Any]]) -> str:
    def told(one: Mapping[str, Any]) -> str:
        value, low, high = one["spearman"]
        return f"{one['of']} and {one['and']} {value:+.2f} ({low:+.2f} to {high:+.2f})"

    placed = sorted(known, key=lambda one: -one["spearman"][0])
    text = f"Ranks of runs agree most between {told(placed[0])}"
    if len(placed) > 1:
        text += f", least between {told(placed[-1])}"
    return f"{text} (Spearman's correlation over {placed[0]['runs']} runs)."


def _of_seen(name: str, of: Mapping[str, Sequence[Any]]) -> str:
    parts = [f"{run} ({n:,} of {total:,}{how})" for run, (n, total, how) in of.items()]
    return (
        f"Tested samples of {name} that were in pre-training: {', '.join(parts)}. What they say is not of new samples."
    )


def refusals(refused: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Sentences on what is not measured: one for each data set and reason."""
    told = []
    for name, of in refused.items():
        for why in dict.fromkeys(of.values()):
            runs = [run for run, said in of.items() if said == why]
            told.append(f"Not measured: {some(runs, 5)} on {name}: {why.rstrip('.')}.")
    return told
