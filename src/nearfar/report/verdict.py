"""The three questions of whoever trains without labels, answered in plain words from the numbers of the run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from nearfar.evaluation.alarms import alarms
from nearfar.report import parts
from nearfar.report.record import Record

ACCURACY, CALIBRATION = "accuracy (%)", "calibration error (%)"


@dataclass(frozen=True)
class Answer:
    """One question and its answer; `mood` is "good", "unsure" or "bad"."""

    question: str
    text: str
    mood: str


def answers(record: Record) -> list[Answer]:
    """Is it working, will it help me, which checkpoint; of a classifier, whether it names well, and knows how well."""
    if record.classifier is not None:
        return [working(record), naming(record), trusting(record)]
    return [working(record), helping(record), checkpoint(record)]


def working(record: Record) -> Answer:
    """Judged by the alarms, and by the loss against that of a model that knows nothing (chance)."""
    question = "Is it working?"
    lines = record.curve("loss")
    if not lines:
        return Answer(question, "Not known yet: no loss has been written.", "unsure")
    finite = [line for line in lines if math.isfinite(line["loss"])]
    if not finite or finite[-1] is not lines[-1]:
        since = next(line["step"] for line in lines if not finite or line["step"] > finite[-1]["step"])
        text = (
            f"No. The loss is not a number from step {since} on; a lower learning rate or full precision may cure it."
        )
        return Answer(question, text, "bad")
    if found := alarms(record.metrics):
        text = " ".join(f"{alarm.name.capitalize()}: {alarm.text}" for alarm in found)
        return Answer(question, f"Something is wrong. {text}", "bad")
    losses = [float(line["loss"]) for line in finite]
    first, last = losses[0], fmean(losses[-max(1, len(losses) // 20) :])
    chances = [line["chance"] for line in record.curve("chance")]
    if not chances:
        text = f"The loss went from {first:.3g} to {last:.3g}. This method has no chance value to hold it against"
        return Answer(question, f"{text}, so look at the measures below.", "good" if last < first else "unsure")
    chance = float(chances[-1])
    if last > chance - 0.02 * abs(chance):
        text = (
            f"Not yet. The loss is {last:.3g} and chance, the loss of a model that knows nothing, is {chance:.3g}. "
            "If it stays there: try another learning rate, or milder views."
        )
        return Answer(question, text, "bad")
    return Answer(question, f"Yes. The loss fell from {first:.3g} (chance {chance:.3g}) to {last:.3g}.", "good")


def helping(record: Record) -> Answer:
    """Judged by the first table that holds this run's encoder and something to compare it with."""
    question = "Will it help me?"
    for table in record.tables.values():
        column = table["columns"][0]
        main = record.main_row(table)
        others = [row for row in table["rows"] if row is not main and _value(row, column) is not None]
        if _value(main, column) is None or not others:
            continue
        best = max(others, key=lambda row: _value(row, column) or 0.0)
        ours, theirs = main["values"][column], best["values"][column]
        places = parts.decimals([cell[key] for cell in (ours, theirs) for key in parts.ENDS], column)
        said = (
            f"{column}: {main['name']} {_said(ours, places)}; "
            f"the best of the rest, {best['name']}, {_said(theirs, places)}"
        )
        if None in (ours["low"], ours["high"], theirs["low"], theirs["high"]):
            return Answer(question, f"{said}. Without intervals this may be luck.", "unsure")
        if ours["low"] > theirs["high"]:
            return Answer(question, f"Yes. {said}. The 95 % intervals are apart.", "good")
        if ours["high"] < theirs["low"]:
            return Answer(question, f"No. {said}. The 95 % intervals are apart.", "bad")
        return Answer(question, f"Not shown. {said}. The 95 % intervals overlap, so it may be luck.", "unsure")
    probes = record.curve("knn")
    if probes:
        text = f"kNN accuracy went from {probes[0]['knn']:.1f} % to {probes[-1]['knn']:.1f} % in training"
        return Answer(question, f"{text}; nothing to compare it with was measured.", "unsure")
    return Answer(question, "Not known: that takes a few labels. Run the evaluation with them.", "unsure")


def checkpoint(record: Record) -> Answer:
    """Judged by kNN accuracy where there were labels, else the last."""
    question = "Which checkpoint?"
    probes = [line for line in record.curve("knn") if math.isfinite(line["knn"])]
    if not probes:
        return Answer(question, "No labels: `last` is the only checkpoint to take.", "unsure")
    best, last = max(probes, key=lambda line: line["knn"]), probes[-1]
    if best["knn"] - last["knn"] <= 1.0:
        return Answer(
            question,
            f"Take `last`: its kNN accuracy, {last['knn']:.1f} %, is the best of the run or within 1 point of it.",
            "good",
        )
    where = f"epoch {best['epoch']:g}" if "epoch" in best else f"step {best['step']}"
    return Answer(
        question,
        f"Look at {where}: kNN accuracy was {best['knn']:.1f} % there and fell to {last['knn']:.1f} % at the end.",
        "unsure",
    )


def naming(record: Record) -> Answer:
    """Judged by the test split, against always naming its most frequent class."""
    question = "Does it name well?"
    table = next((table for table in record.tables.values() if ACCURACY in table["columns"]), None)
    if table is None:
        return Answer(question, "Not known: the labels name no split `test` to try it on.", "unsure")
    cell, counts = record.main_row(table)["values"][ACCURACY], (table.get("confusion") or {}).get("counts") or []
    places = parts.decimals(cell.values(), ACCURACY)
    text = f"{parts.number(cell['value'], places)} % of the test samples are named right"
    if not counts or cell["low"] is None or cell["high"] is None:
        return Answer(question, f"{text}.", "unsure")
    text = f"{text}, 95 % interval {parts.interval(cell, places)}"
    sizes: dict[int, int] = {}
    for truth, _, n in counts:
        sizes[truth] = sizes.get(truth, 0) + n
    usual = 100 * max(sizes.values()) / sum(sizes.values())
    text = f"{text}; always naming the most frequent class would give {usual:.1f} %."
    if cell["low"] > usual:
        return Answer(question, f"Better than chance. {text}", "good")
    return Answer(question, f"Not shown. {text}", "bad" if cell["high"] < usual else "unsure")


def trusting(record: Record) -> Answer:
    """Judged by whether its probabilities were calibrated, with how far they are off on the test split."""
    said = str((record.classifier or {}).get("calibration") or "not known how they were calibrated")
    rows = [record.main_row(table)["values"].get(CALIBRATION, {}) for table in record.tables.values()]
    off = next((row["value"] for row in rows if row.get("value") is not None), None)
    text = f"{said[:1].upper()}{said[1:]}."
    text += "" if off is None else f" On the test split they are off by {off:.1f} points on average."
    return Answer("Are its probabilities right?", text, "unsure" if said.startswith("not") else "good")


def _value(row: dict[str, Any], column: str) -> float | None:
    return row["values"].get(column, {}).get("value")


def _said(cell: dict[str, float | None], places: int) -> str:
    interval = parts.interval(cell, places)
    return parts.number(cell["value"], places) + (f" ({interval})" if interval else "")
