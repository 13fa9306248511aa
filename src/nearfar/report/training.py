"""What metrics.jsonl holds, as curves. `curves` of two runs can be laid over one another."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import fmean
from typing import Any

from nearfar.evaluation.scores import PREFIX, SCORES
from nearfar.report.record import Record

CURVES = {
    "loss": ("Loss", "What training minimizes. Dashed: the chance level, the loss of equal outputs for all samples."),
    "knn": ("kNN accuracy (%)", "How often the nearest samples vote for the true class. Training does not use it."),
    "accuracy": ("Contrastive accuracy (%)", "How often the other view of a sample is the nearest of all candidates."),
    "effective_rank": ("Effective rank", "How many dimensions of the representation are in use. Near 1: collapse."),
    "spread": ("Spread", "How different samples are to the encoder. 0: all the same (collapse). 1: spread evenly."),
    "alignment": ("Alignment", "The mean squared distance of two views of a sample, 0 to 4. Lower is better."),
    "uniformity": ("Uniformity", "How evenly samples cover the sphere. 0: collapse. -4: as evenly as possible."),
    "effective_negatives": (
        "Effective negatives",
        "How many negatives a sample is pushed from, in effect: near ones count fully, far ones hardly.",
    ),
    "drift": ("Drift of the memory", "How much the encoder has changed since the oldest keys were stored. 0: nothing."),
    "with_positive": ("Share with a positive", "How many samples have another of their class in the batch, 0 to 1."),
    "lr": ("Learning rate", "The size of a step: it rises during warm-up, then falls."),
    "gradient_norm": ("Gradient norm", "The length of the gradient. Peaks that keep growing: training is unstable."),
    "overflowed": (
        "Overflowed steps",
        "Steps whose gradient overflowed in half precision, out of those that share a line: they were left out.",
    ),
    "samples_per_second": ("Samples per second", "Training speed. Where it dips, training waited for data."),
    "input_share": ("Share of input", "The share of time spent on reading samples and making views, 0 to 1."),
} | {f"{PREFIX}{name}": (f"Score: {score.title}", score.gloss) for name, score in SCORES.items()}
"""The metrics that have a title of their own; all other numbers are drawn after them, under their key."""

FROM_ZERO = frozenset(CURVES) - {"loss", "knn", "lr"}
"""Readings whose size says something: drawn from 0, so that a wobble of a hundredth looks like one."""


def curves(record: Record, points: int = 400) -> list[dict[str, Any]]:
    """For each number in metrics.jsonl: its title, its gloss, x, y and, for the loss, its chance line.

    Of more than `points` lines, neighboring ones are drawn as their mean.
    """
    others = {key for line in record.metrics for key, value in line.items() if isinstance(value, int | float)}
    counts = {"step", "epoch", "chance", "margin", f"{PREFIX}samples"}
    others = {key for key in others if not key.startswith("knn_")} - counts - {*CURVES}
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


def _mean(lines: Iterable[dict[str, Any]], key: str) -> float | None:
    values = [line[key] for line in lines if isinstance(line.get(key), int | float)]
    mean = fmean(values) if values else math.nan
    return mean if math.isfinite(mean) else None
