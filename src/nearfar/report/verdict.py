"""The questions of whoever trains, answered from the numbers of the run: by the report, and by the command line.

An answer is a finding with its facts. The template verdict.html puts each finding into words, which `spoken` gives as
plain text.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal

from markupsafe import Markup

from nearfar.evaluation.alarms import ROWS, Alarm, alarms
from nearfar.evaluation.intervals import ALIKE, Interval, Judgement, apart, judged
from nearfar.evaluation.progress import binomial, gain_between
from nearfar.evaluation.scores import SCORES
from nearfar.report import html
from nearfar.report.choice import choice, scored, validated
from nearfar.report.numbers import decimals
from nearfar.report.record import Record
from nearfar.report.results import ENDS, NOTHING
from nearfar.training.saved import epochs

PROBE = "kNN accuracy on held-out samples"
ACCURACY, CALIBRATION = "accuracy (%)", "calibration error (%)"
STARTS = ("given weights", "untrained encoder")
"""The rows of a table that say where training began, of which the first that is there counts."""
FEW_STEPS = 200
"""Steps before which neither neighbors as they were nor a loss at its chance level say anything."""
NARROWED = 0.5
"""Share of the effective rank before training below which a representation has become narrow."""
NEAR = 5.0
"""Points below which the upper ends of gains lie on average, where gains that are not seen count as none."""
FAILURES = {
    "below the given weights",
    "collapse",
    "dimensional collapse",
    "stuck at the margin",
    "stuck at chance",
    "exploding gradient",
}
"""Alarms after which nothing good is to be expected."""
SLOW = {"input starvation"}
"""Alarms that speak of time alone."""
Mood = Literal["good", "unsure", "bad"]


@dataclass(frozen=True)
class Answer:
    """topic, finding: what is asked and what is the case, a word each.  facts: the numbers and names of the finding."""

    topic: str
    finding: str
    mood: Mood
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Gain:
    """Accuracies in per cent, and what the second has over the first.

    of: what was measured, such as "kNN accuracy".  samples: tested; None where that is not known.
    """

    of: str
    first: float
    last: float
    interval: Interval | None
    samples: int | None = None

    @property
    def judged(self) -> Judgement:
        return "open" if self.interval is None else judged(self.interval)


def answers(record: Record) -> list[Answer]:
    """Is it working, will it help me, which checkpoint; of a classifier: does it classify well, is it calibrated."""
    if record.classifier is not None:
        return [working(record), classifying(record), calibrated(record)]
    return [working(record), helping(record), checkpoint(record)]


def spoken(record: Record) -> list[str]:
    """The answers as lines of plain text: the question and the words of the report."""
    said = html.environment().get_template("verdict.html").module
    lines = []
    for answer in answers(record):
        words = said.words(answer.finding, answer.facts)  # pyright: ignore[reportAttributeAccessIssue]
        quoted = str(words).replace("<code>", "`").replace("</code>", "`")
        lines.append(f"{said.questions[answer.topic]} {Markup(quoted).striptags()}")  # pyright: ignore[reportAttributeAccessIssue]
    return lines


def unhelped(record: Record) -> str:
    """A line on a run in which nothing helped, by what `working` finds; "" where something did, or none can tell."""
    answer = working(record)
    gain: Gain | None = answer.facts.get("gain")
    if gain is None or gain.judged == "ahead" or (answer.mood != "bad" and gain.last > gain.first):
        return ""
    found = "training did not help." if answer.mood == "bad" else "no gain is seen."
    return f"{gain.of} {gain.last:.1f} %, before training {gain.first:.1f} %: {found}"


def working(record: Record) -> Answer:
    """Judged against the encoder before training: by the probe or by `evaluate`, without labels by readings.

    The loss alone never makes a yes, and a standing alarm on what is learned prevents one.
    """
    steps = max((line["step"] for line in record.metrics), default=0)
    raised = alarms(record.metrics, given=bool(_given(record)))
    common: dict[str, Any] = {
        "steps": int(steps),
        "stopped": record.environment.get("finished") is False,
        "with_labels": _learns_labels(record),
        "given": _given(record),
        "alarms": [(alarm.name, alarm.text) for alarm in raised],
    }

    def answer(finding: str, mood: Mood, **facts: Any) -> Answer:
        return Answer("working", finding, mood, common | facts)

    lines = record.curve("loss")
    finite = [line for line in lines if math.isfinite(line["loss"])]
    if not steps or not (lines or record.curve("knn")):
        return answer("no_loss", "unsure")
    if lines and (not finite or finite[-1] is not lines[-1]):
        since = next(line["step"] for line in lines if not finite or line["step"] > finite[-1]["step"])
        return answer("loss_not_a_number", "bad", step=since)
    gains = [gain for gain in (_probed(record), _evaluated(record)) if gain is not None]
    gains.sort(key=lambda gain: -(gain.samples or 0))  # what rests on most samples is shown first
    loss = _loss(record, finite)
    if grave := [alarm for alarm in raised if alarm.name not in SLOW]:
        return _alarming(answer, grave, gains)
    if record.classifier is not None and not gains:
        return _fitting(answer, record, loss)
    if gains:
        return _compared(answer, gains, loss, int(steps))
    if loss.get("at_chance"):
        return answer("too_early" if steps < FEW_STEPS else "at_chance_level", _early(steps, "bad"), **loss)
    if probes := record.curve("knn"):
        return answer("no_start", "unsure", first=probes[0]["knn"], last=probes[-1]["knn"], epoch=_epoch(probes[0]))
    if common["with_labels"]:
        return answer("own_labels", "unsure", **loss)
    return _without_labels(answer, record, loss, int(steps))


def _alarming(answer: Any, raised: Sequence[Alarm], gains: Sequence[Gain]) -> Answer:
    """Alarms stand: where neighbors got better all the same it is a doubt, else a no if they are failures."""
    shown = {"gain": gains[0]} if gains else {}
    said = {gain.judged for gain in gains}
    if "behind" in said and "ahead" not in said:
        return answer("worse", "bad", gain=next(gain for gain in gains if gain.judged == "behind"))
    if "ahead" in said:
        return answer("alarms_yet_better", "unsure", gain=next(gain for gain in gains if gain.judged == "ahead"))
    failed = any(alarm.name in FAILURES for alarm in raised)
    return answer("alarms", "bad" if failed else "unsure", grave=failed, **shown)


def _compared(answer: Any, gains: Sequence[Gain], loss: dict[str, Any], steps: int) -> Answer:
    """Neighbors after against before training."""
    said = {gain.judged: gain for gain in reversed(gains)}
    if "ahead" in said and "behind" in said:
        return answer("disagree", "unsure", gain=said["ahead"], other=said["behind"])
    if "ahead" in said:
        return answer("better", "good", gain=said["ahead"])
    if "behind" in said:
        return answer("worse", "bad", gain=said["behind"])
    if steps < FEW_STEPS:
        return answer("too_early", "unsure", gain=gains[0], **loss)
    if loss.get("at_chance"):
        return answer("at_chance_level", "bad", gain=gains[0], **loss)
    if "alike" in said:
        return answer("unchanged", "bad", gain=said["alike"])
    return answer("cannot_tell", "unsure", gain=gains[0])


def _fitting(answer: Any, record: Record, loss: dict[str, Any]) -> Answer:
    """A network that was trained on labels: its loss says that it learned them, its test whether that helps."""
    if loss.get("at_chance"):
        return answer("at_chance_level", "bad", **loss)
    return answer("fits_labels", classifying(record).mood, **loss)


def _without_labels(answer: Any, record: Record, loss: dict[str, Any], steps: int) -> Answer:
    """By how often the other view is found, and whether the representation stays wide, against before training."""
    read = record.curve("effective_rank") or record.curve("accuracy")
    start = next((line for line in read if line["step"] == 0), None)
    if start is None or read[-1] is start:
        return answer("loss_only", "unsure", missing=start is None, **loss)
    last = read[-1]
    names = ("accuracy", "effective_rank", "spread", "alignment", "uniformity")
    shown = {name: (start[name], last[name]) for name in names if name in start and name in last}
    if "accuracy" not in shown:
        return answer("loss_only", "unsure", missing=False, readings=shown, **loss)
    made = record.config.get("made") or {}
    rows = min(ROWS, int(made.get("batch") or ROWS) // int(made.get("processes") or 1))
    found = judged(apart(*(binomial(value, rows) for value in reversed(shown["accuracy"]))))
    before, after = shown.get("effective_rank", (1.0, 1.0))
    if found == "behind":
        return answer("task_lost", "bad", readings=shown, **loss)
    if found != "ahead":
        return answer("too_early" if steps < FEW_STEPS else "task_unchanged", "unsure", readings=shown, **loss)
    return answer("narrowed" if after < NARROWED * before else "task_learned", "unsure", readings=shown, **loss)


def helping(record: Record) -> Answer:
    """Judged by all columns of one table that holds this run's encoder and something to compare it with: the newest of
    the run's own data, else the newest of all; one whose labels the encoder has learned from only if there is no other.

    In each column against the best of the others. A gain in one and a loss in another is said as it is; where there is
    neither, doing without training is as good, or too few samples were tested to tell.
    """
    tables = [(table, columns) for table in record.tables.values() if (columns := _columns(record, table))]
    if tables:
        table, columns = min(tables, key=lambda item: _learned(item[0]))
        seen = table.get("seen") or {"samples": 0}
        return _weighed(columns, {"columns": columns, "seen": seen, "on": _on(table), "results": len(tables)})
    if probes := record.curve("knn"):
        facts = {"first": probes[0]["knn"], "last": probes[-1]["knn"], "from_start": probes[0]["step"] == 0}
        return Answer("helping", "only_knn", "unsure", facts)
    return Answer("helping", "not_measured", "unsure")


def _weighed(columns: Sequence[dict[str, Any]], facts: dict[str, Any]) -> Answer:
    """What all columns say together."""
    by = {said: [c for c in columns if c["judged"] == said] for said in ("ahead", "behind", "alike", "open")}
    gains = [column["gain"] for column in columns if column["gain"] is not None]
    facts |= by

    def answer(finding: str, mood: Mood) -> Answer:
        return Answer("helping", finding, mood, facts)

    if facts["seen"].get("samples") and facts["seen"].get("with labels"):  # which flatters: only a loss says something
        lost = by["behind"] and not by["ahead"]
        return answer("harms", "bad") if lost else answer("seen_labels", "unsure")
    if not gains:
        return answer("no_intervals", "unsure")
    if by["ahead"] and by["behind"]:
        return answer("mixed", "unsure")
    if by["ahead"]:
        return answer("helps", "good")
    if by["behind"]:
        return answer("harms", "bad")
    near = fmean(gain.mean for gain in gains) <= 0 and fmean(gain.high for gain in gains) <= NEAR
    return answer("as_good", "bad") if near or not by["open"] else answer("too_few", "unsure")


def _on(table: Mapping[str, Any]) -> str:
    """What a table was measured on, in a few words."""
    own = "the run's own data " if table.get("own") else ""
    which = (table.get("protocol") or {}).get("checkpoint")
    of = f", of the checkpoint of epoch {which}" if isinstance(which, int) else ", of the best checkpoint"
    return f"on {own}{str(table.get('data') or table['title'])!r}{of if which not in (None, 'last') else ''}"


def _learned(table: Mapping[str, Any]) -> bool:
    """Whether tested samples were in training with their labels."""
    seen = table.get("seen") or {}
    return bool(seen.get("samples") and seen.get("with labels"))


def _columns(record: Record, table: dict[str, Any]) -> list[dict[str, Any]]:
    return [column for name in table["columns"] if (column := _column(record, table, name))]


def _column(record: Record, table: dict[str, Any], name: str) -> dict[str, Any] | None:
    """The main row in one column, against the best of the others; None where there is nothing to compare."""
    main = record.main_row(table)
    others = [row for row in table["rows"] if row is not main and _cell(row, name)["value"] is not None]
    ours = _cell(main, name)
    if ours["value"] is None or not others:
        return None
    best = max(others, key=lambda row: _cell(row, name)["value"] or 0.0)
    theirs = _cell(best, name)
    gain = _gain(table, best["name"], name, ours, theirs)
    return {
        "name": name,
        "cell": ours,
        "best": best["name"],
        "best_cell": theirs,
        "gain": gain,
        "judged": "open" if gain is None else judged(gain),
        "places": decimals([cell[end] for cell in (ours, theirs) for end in ENDS], name),
    }


def _gain(
    table: Mapping[str, Any], other: str, column: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]
) -> Interval | None:
    """What the main row gains over another: on the same samples where that was measured, else of two intervals."""
    measured = table.get("gains", {}).get(other, {}).get(column)
    if measured is not None:
        return Interval(measured["value"], measured["low"], measured["high"])
    both = [(cell["value"], cell["low"], cell["high"]) for cell in (ours, theirs)]
    return None if None in (*both[0], *both[1]) else apart(Interval(*both[0]), Interval(*both[1]))


def checkpoint(record: Record) -> Answer:
    """Judged by the probe after each epoch, with an interval that allows for so many having been looked at."""
    probes = [line for line in record.curve("knn") if math.isfinite(line["knn"])]
    start = probes[0] if probes and probes[0]["step"] == 0 else None
    probes = [line for line in probes if line["step"] > 0] if start else probes
    if not probes:
        return _unlabeled(record)
    best, last = max(probes, key=lambda line: line["knn"]), probes[-1]
    facts = {
        "best": best["knn"],
        "last": last["knn"],
        "epoch": _epoch(best),
        "step": best["step"],
        "kept": "best.pt" in record.checkpoints,
        "tries": len(probes),
        "start": None if start is None else start["knn"],
        "given": _given(record),
    }
    level = 1 - 0.05 / max(1, len(probes) - 1)
    if start is not None and facts["given"] and best["knn"] <= start["knn"]:
        gain = _between(record, start, last)
        return Answer("checkpoint", "start", "bad" if gain.judged == "behind" else "unsure", facts | {"gain": gain})
    if start is not None:
        gain = _between(record, start, best, level)
        if gain.judged == "behind":
            return Answer("checkpoint", "none", "bad", facts | {"gain": gain})
    gain = _between(record, last, best, level)
    if gain.judged != "ahead" and working(record).finding == "worse":
        return Answer("checkpoint", "last_is_worse", "bad", facts)
    if gain.judged != "ahead" and start is not None and best["knn"] <= start["knn"]:
        return Answer("checkpoint", "not_above_start", "unsure", facts | {"gain": _between(record, start, last)})
    if best["knn"] == last["knn"]:
        return Answer("checkpoint", "take_last", "good", facts)
    found = {"ahead": ("accuracy_fell", "unsure"), "alike": ("take_last", "good"), "open": ("not_told_apart", "unsure")}
    finding, mood = found[gain.judged]
    mood = mood if finding == "accuracy_fell" or best["knn"] - last["knn"] > ALIKE else "good"
    return Answer("checkpoint", finding, mood, facts | {"gain": gain})  # pyright: ignore[reportArgumentType]


def _unlabeled(record: Record) -> Answer:
    """By scores that take no labels, as far as these were seen to choose better than the last checkpoint."""
    known = validated()
    there = scored(record.metrics).keys() & epochs(record.checkpoints, record.config).keys()
    taken = choice(record.metrics, there)
    # A score that chooses well is of no use to a run that lacks it.
    if len(there) < 2 or not known["measured"] or (taken is None and known["scores"]):
        return Answer("checkpoint", "no_labels", "unsure")
    known = known | {"tried": any(name in {*SCORES, "clid"} for name in known["picks"].values())}
    if taken is None:
        return Answer("checkpoint", "no_score", "unsure", known)
    facts = {"epoch": taken.epoch, "names": taken.names, "tries": len(there), "is_last": taken.epoch == max(there)}
    return Answer("checkpoint", "by_score", "unsure", known | facts)


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
    cells = [_cell(record.main_row(table), CALIBRATION) for table in record.tables.values()]
    error = next((cell["value"] for cell in cells if cell["value"] is not None), None)
    mood: Mood = "unsure" if not how or how.startswith("not") else "good"
    return Answer("calibrated", "calibration", mood, {"how": how, "error": error})


def _cell(row: Mapping[str, Any], column: str) -> Mapping[str, float | None]:
    return row["values"].get(column, NOTHING)


def _epoch(line: Mapping[str, Any]) -> float | None:
    return line.get("epoch")


def _early(steps: float, mood: Mood) -> Mood:
    return "unsure" if steps < FEW_STEPS else mood


def _given(record: Record) -> str:
    """Where the weights came from that training began with; "" where they were random."""
    return str((record.config.get("made") or {}).get("given") or "")


def _learns_labels(record: Record) -> bool:
    return bool((record.config.get("made") or {}).get("needs_labels"))


def _loss(record: Record, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The loss at first and at the end, its chance level, and whether it is still there; {} where there is none."""
    if not lines:
        return {}
    losses = [float(line["loss"]) for line in lines]
    first, last = losses[0], fmean(losses[-max(1, len(losses) // 20) :])
    levels = [float(line["chance"]) for line in record.curve("chance")]
    chance = levels[-1] if levels else None
    at_chance = chance is not None and last > chance - 0.02 * abs(chance)
    return {"first_loss": first, "last_loss": last, "chance": chance, "at_chance": at_chance}


def _probed(record: Record) -> Gain | None:
    """The last probe against that before the first step."""
    probes = [line for line in record.curve("knn") if math.isfinite(line["knn"])]
    if len(probes) < 2 or probes[0]["step"] != 0:
        return None
    return _between(record, probes[0], probes[-1])


def _evaluated(record: Record) -> Gain | None:
    """The first measure of a table, such as kNN, of the trained encoder against the one it began as, as `evaluate`
    measured both.

    Labels that the encoder has learned from flatter it: there only a loss counts.
    """
    for table in record.tables.values():
        main = record.main_row(table)
        rows = {row["name"]: row for row in table["rows"] if row is not main}
        other = next((rows[name] for name in STARTS if name in rows), None)
        seen, column = table.get("seen") or {}, table["columns"][0]
        if other is None:
            continue
        flattered = _learns_labels(record) and seen.get("samples", 1)
        ours, theirs = _cell(main, column), _cell(other, column)
        if ours["value"] is not None and theirs["value"] is not None:
            interval = _gain(table, other["name"], column, ours, theirs)
            on = f" {_on(table)}" if len(record.tables) > 1 else ""
            of = f"In `evaluate`{on}, {column}"
            gain = Gain(of, theirs["value"], ours["value"], interval, seen.get("of"))
            if not flattered or gain.judged == "behind":
                return gain
    return None


def _between(record: Record, first: Mapping[str, Any], last: Mapping[str, Any], level: float = 0.95) -> Gain:
    """What one probe has over another."""
    usual: dict[str, Any] = {"knn_samples": _probe_size(record)}
    before, after = usual | dict(first), usual | dict(last)
    interval = gain_between(before, after, level)
    samples = None if interval is None else min(before["knn_samples"], after["knn_samples"])
    return Gain(PROBE, first["knn"], last["knn"], interval, samples)


def _probe_size(record: Record) -> int | None:
    """The samples of a probe of an earlier version, at most: a tenth of all, and no more than 1,000."""
    samples = record.config.get("samples")
    return min(1000, samples // 10) or None if isinstance(samples, int) else None
