"""What metrics.jsonl tells, as curves. `curves` of two runs can be laid over one another."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import fmean
from typing import Any

from nearfar.report import parts
from nearfar.report.record import Record

CURVES = {
    "loss": ("Loss", "What training brings down. Dashed: chance, the loss of a model that knows nothing."),
    "knn": ("kNN accuracy (%)", "How often the nearest samples vote for the true class. Labels serve this check only."),
    "accuracy": ("Contrastive accuracy (%)", "How often a sample's own other view is the nearest of all candidates."),
    "effective_rank": ("Effective rank", "How many dimensions of the representation are in use. Near 1 is collapse."),
    "spread": ("Spread", "0: all samples are represented alike, which is collapse. 1: spread evenly."),
    "alignment": ("Alignment", "The mean squared distance of two views of a sample, 0 to 4. Low is good."),
    "uniformity": ("Uniformity", "How evenly samples fill the sphere: 0 is collapse, -4 the best there is."),
    "effective_negatives": (
        "Effective negatives",
        "By how many negatives a sample is pushed, in effect: those near it count, those far away hardly do.",
    ),
    "drift": ("Drift of the memory", "How far the encoder has moved since the oldest keys were stored. 0: not at all."),
    "with_positive": ("Share with a positive", "How many samples find another of their class in the batch, 0 to 1."),
    "lr": ("Learning rate", "The size of a step: up during warm-up, then down."),
    "gradient_norm": ("Gradient norm", "The length of the gradient. Peaks that keep growing announce trouble."),
    "samples_per_second": ("Samples per second", "Training speed. Dips mean that the machine waited for data."),
    "input_share": ("Share of input", "How much of the time went to reading samples and making views, 0 to 1."),
}
"""The metrics that have a name of their own; all other numbers are drawn after them, under their key."""

FROM_ZERO = frozenset(CURVES) - {"loss", "knn", "lr"}
"""Readings whose size says something: drawn from 0, so that a wobble of a hundredth looks like one."""

LEAD = (
    "How the run went. A falling loss shows that views are matched; whether that is of use, only a measure with labels "
    "can tell."
)


def curves(record: Record, points: int = 400) -> list[dict[str, Any]]:
    """For each number in metrics.jsonl: its title, its gloss, x, y and, for the loss, its chance line.

    Of more than `points` lines, neighboring ones are drawn as their mean.
    """
    others = {key for line in record.metrics for key, value in line.items() if isinstance(value, int | float)}
    others -= {"step", "epoch", "chance", "margin", *CURVES}
    drawn = []
    for key in [*CURVES, *sorted(others)]:
        if not (lines := record.curve(key)):
            continue
        axis = "epoch" if all(isinstance(line.get("epoch"), int | float) for line in lines) else "step"
        size = math.ceil(len(lines) / points)
        bins = [lines[i : i + size] for i in range(0, len(lines), size)]
        title, gloss = CURVES.get(key, (key, "A number that the method reports."))
        curve = {"key": key, "title": title, "gloss": gloss, "axis": axis, "zero": key in FROM_ZERO}
        curve |= {"x": [_mean(b, axis) for b in bins], "y": [_mean(b, key) for b in bins]}
        if key == "loss":
            curve["chance"] = [_mean(b, "chance") for b in bins]
        drawn.append(curve)
    return drawn


def training(drawn: list[dict[str, Any]], title: str = "Training") -> str:
    """A place for each curve, with what it means; the page's script draws them."""
    if not drawn:
        why = "metrics.jsonl is absent or empty: training has not written a line yet."
        return parts.section("training", title, LEAD, parts.missing(why))
    figures = [
        f'<figure class="curve" data-curve="{i}"><figcaption><b>{parts.text(curve["title"])}</b> '
        f'{parts.text(curve["gloss"])}</figcaption><div class="plot"></div></figure>'
        for i, curve in enumerate(drawn)
    ]
    return parts.section("training", title, LEAD, f'<div class="curves">{"".join(figures)}</div>')


def _mean(lines: Iterable[dict[str, Any]], key: str) -> float | None:
    values = [line[key] for line in lines if isinstance(line.get(key), int | float)]
    mean = fmean(values) if values else math.nan
    return mean if math.isfinite(mean) else None
