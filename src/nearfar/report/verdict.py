"""The questions of whoever trains without labels, answered from the numbers of the run.

An answer is a finding with its facts. The template verdict.html puts each finding into words.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal

from nearfar.evaluation.alarms import alarms
from nearfar.report.numbers import decimals
from nearfar.report.record import Record
from nearfar.report.results import ENDS, NOTHING

ACCURACY, CALIBRATION = "accuracy (%)", "calibration error (%)"
Mood = Literal["good", "unsure", "bad"]


@dataclass(frozen=True)
class Answer:
    """topic, finding: what is asked and what is the case, a word each.  facts: the numbers and names of the finding."""

    topic: str
    finding: str
    mood: Mood
    facts: Mapping[str, Any] = field(default_factory=dict)


def answers(record: Record) -> list[Answer]:
    """Is it working, will it help me, which checkpoint; of a classifier: does it classify well, is it calibrated."""
    if record.classifier is not None:
        return [working(record), classifying(record), calibrated(record)]
    return [working(record), helping(record), checkpoint(record)]


def working(record: Record) -> Answer:
    """Judged by the alarms, and by the loss against its chance level."""

    def answer(finding: str, mood: Mood, **facts: Any) -> Answer:
        return Answer("working", finding, mood, facts)

    lines = record.curve("loss")
    if not lines:
        return answer("no_loss", "unsure")
    finite = [line for line in lines if math.isfinite(line["loss"])]
    if not finite or finite[-1] is not lines[-1]:
        since = next(line["step"] for line in lines if not finite or line["step"] > finite[-1]["step"])
        return answer("loss_not_a_number", "bad", step=since)
    if raised := alarms(record.metrics):
        return answer("alarms", "bad", alarms=[(alarm.name, alarm.text) for alarm in raised])
    losses = [float(line["loss"]) for line in finite]
    first, last = losses[0], fmean(losses[-max(1, len(losses) // 20) :])
    levels = [float(line["chance"]) for line in record.curve("chance")]
    if not levels:
        return answer("no_chance_level", "good" if last < first else "unsure", first=first, last=last)
    chance = levels[-1]
    if last > chance - 0.02 * abs(chance):
        return answer("at_chance_level", "bad", last=last, chance=chance)
    return answer("loss_fell", "good", first=first, last=last, chance=chance)


def helping(record: Record) -> Answer:
    """Judged by the first table that holds this run's encoder and something to compare it with."""
    for table in record.tables.values():
        column, main = table["columns"][0], record.main_row(table)
        others = [row for row in table["rows"] if row is not main and _value(row, column) is not None]
        if _value(main, column) is None or not others:
            continue
        best = max(others, key=lambda row: _value(row, column) or 0.0)
        ours, theirs = main["values"][column], best["values"][column]
        facts = {
            "column": column,
            "name": main["name"],
            "cell": ours,
            "best_name": best["name"],
            "best_cell": theirs,
            "places": decimals([cell[end] for cell in (ours, theirs) for end in ENDS], column),
        }
        if None in (ours["low"], ours["high"], theirs["low"], theirs["high"]):
            return Answer("helping", "no_intervals", "unsure", facts)
        if ours["low"] > theirs["high"]:
            return Answer("helping", "better", "good", facts)
        if ours["high"] < theirs["low"]:
            return Answer("helping", "worse", "bad", facts)
        return Answer("helping", "overlap", "unsure", facts)
    if probes := record.curve("knn"):
        return Answer("helping", "only_knn", "unsure", {"first": probes[0]["knn"], "last": probes[-1]["knn"]})
    return Answer("helping", "not_measured", "unsure")


def checkpoint(record: Record) -> Answer:
    """Judged by kNN accuracy where there were labels, else the last."""
    probes = [line for line in record.curve("knn") if math.isfinite(line["knn"])]
    if not probes:
        return Answer("checkpoint", "no_labels", "unsure")
    best, last = max(probes, key=lambda line: line["knn"]), probes[-1]
    if best["knn"] - last["knn"] <= 1.0:
        return Answer("checkpoint", "take_last", "good", {"last": last["knn"]})
    facts = {"best": best["knn"], "last": last["knn"], "epoch": best.get("epoch"), "step": best["step"]}
    return Answer("checkpoint", "accuracy_fell", "unsure", facts)


def classifying(record: Record) -> Answer:
    """Judged by the test split, against always predicting its most frequent class."""
    table = next((table for table in record.tables.values() if ACCURACY in table["columns"]), None)
    cell = NOTHING if table is None else record.main_row(table)["values"].get(ACCURACY, NOTHING)
    if table is None or cell["value"] is None:
        return Answer("classifying", "no_test_split", "unsure")
    counts = (table.get("confusion") or {}).get("counts") or []
    facts: dict[str, Any] = {"cell": cell, "places": decimals(cell.values(), ACCURACY)}
    low, high = cell["low"], cell["high"]
    if not counts or low is None or high is None:
        return Answer("classifying", "accuracy_alone", "unsure", facts)
    sizes: Counter[int] = Counter()
    for truth, _, n in counts:
        sizes[truth] += n
    facts["frequent"] = frequent = 100 * max(sizes.values()) / sizes.total()
    if low > frequent:
        return Answer("classifying", "above_frequent", "good", facts)
    return Answer("classifying", "not_above_frequent", "bad" if high < frequent else "unsure", facts)


def calibrated(record: Record) -> Answer:
    """Judged by whether its probabilities were calibrated, with their calibration error on the test split."""
    how = str((record.classifier or {}).get("calibration") or "")
    cells = [record.main_row(table)["values"].get(CALIBRATION, NOTHING) for table in record.tables.values()]
    error = next((cell["value"] for cell in cells if cell["value"] is not None), None)
    mood: Mood = "unsure" if not how or how.startswith("not") else "good"
    return Answer("calibrated", "calibration", mood, {"how": how, "error": error})


def _value(row: Mapping[str, Any], column: str) -> float | None:
    return row["values"].get(column, NOTHING)["value"]
