from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from nearfar.evaluation.protocol import packed
from nearfar.report import choice, html, verdict
from nearfar.report.record import Record, in_order
from nearfar.report.verdict import FEW_STEPS, Answer, answers, spoken, unhelped

NAN = math.nan
LONG = {"step": 400, "epoch": 9.0}
"""A line without numbers, which says that training was long enough."""
STOPPED = {"environment": {"finished": False}}
LABELS = {"config": {"made": {"needs_labels": True}}}


def record(*parts: dict[str, Any] | Record, **fields: Any) -> Record:
    """One record of several: the lines of metrics and the tables of all, and the other fields."""
    made = Record(Path(), **fields)
    for part in parts:
        own = part if isinstance(part, dict) else vars(part)
        made.metrics = sorted([*made.metrics, *own.get("metrics", [])], key=lambda line: line["step"])
        made.tables |= own.get("tables", {})
        made.config |= own.get("config", {})
        made.environment |= own.get("environment", {})
        made.checkpoints += own.get("checkpoints", [])
    return made


def losses(*values: float, chance: float | None = 5.5, every: int = 100) -> Record:
    """From step `every` on: three values are 300 steps."""
    lines = [{"step": every * i, "loss": v, "chance": chance} for i, v in enumerate(values, 1)]
    return record({"metrics": lines})


def probed(*knn: float, samples: int | None = 1000, begin: int = 0, every: int = 100) -> Record:
    """Probes from step 0 on, an epoch of 100 steps apart."""
    own = {} if samples is None else {"knn_samples": samples}
    lines = [{"step": every * i, "epoch": float(i), "knn": v, **own} for i, v in enumerate(knn, begin)]
    return record({"metrics": lines})


def answered(*right: float, samples: int = 400) -> Record:
    """Probes whose answers are known: those who are right in the first are so in all that are higher."""
    lines = [
        {"step": 100 * i, "epoch": float(i), "knn": v, "knn_samples": samples}
        | {"knn_right": packed(torch.arange(samples) < v * samples / 100)}
        for i, v in enumerate(right)
    ]
    return record({"metrics": lines})


def read(*accuracy: float, rank: tuple[float, ...] = (), last: int = 400) -> Record:
    """Readings of a batch from step 0 to `last`."""
    ranks = rank or (30.0,) * len(accuracy)
    lines = [
        {"step": last * i // (len(accuracy) - 1), "accuracy": a, "effective_rank": r, "spread": 0.5, "uniformity": -1.0}
        for i, (a, r) in enumerate(zip(accuracy, ranks, strict=True))
    ]
    return record({"metrics": lines})


def compared(
    ours: Mapping[str, tuple[float | None, ...]],
    untrained: Mapping[str, tuple[float | None, ...]],
    raw: float = 1.0,
    gains: dict[str, tuple[float, float, float]] | None = None,
    seen: dict[str, Any] | None = None,
) -> Record:
    """The table of `evaluate`: by column, values with both ends of their intervals."""
    named: dict[str, Mapping[str, tuple[float | None, ...]]] = {
        "raw pixels": dict.fromkeys(ours, (raw, raw - 0.5, raw + 0.5)),
        "untrained encoder": untrained,
    }
    named["trained encoder"] = ours
    ends = ("value", "low", "high")
    rows = [
        {"name": name, "values": {c: dict(zip(ends, numbers, strict=True)) for c, numbers in cells.items()}}
        for name, cells in named.items()
    ]
    table: dict[str, Any] = {"title": "", "columns": list(ours), "rows": rows, "seen": seen}
    if gains:
        table["gains"] = {
            "untrained encoder": {c: dict(zip(ends, numbers, strict=True)) for c, numbers in gains.items()}
        }
    return record({"tables": {"evaluate": table}})


def three(knn: float, linear: float, few: float, half: float = 2.0) -> dict[str, tuple[float, float, float]]:
    """The three main columns, each with an interval of half a width."""
    cells = {"kNN (%)": knn, "linear (%)": linear, "5 labels (%)": few}
    return {name: (value, value - half, value + half) for name, value in cells.items()}


def classifier(low: float | None, high: float | None, how: str = "temperature fitted on 150 labels") -> Record:
    values = {"accuracy (%)": {"value": 59.0, "low": low, "high": high}}
    values |= {"calibration error (%)": {"value": 7.787, "low": None, "high": None}}
    table = {"title": "", "columns": list(values), "rows": [{"name": "this classifier", "values": values}]}
    table |= {"confusion": {"classes": ["a", "b"], "counts": [[0, 0, 40], [0, 1, 10], [1, 1, 30], [1, 0, 20]]}}
    return Record(Path(), classifier={"classes": 2, "calibration": how}, tables={"finetune": table})


def unmeasured(**facts: object) -> Record:
    return Record(Path(), classifier={"classes": 2, **facts})


BASE = three(50, 60, 30)
KNN = {"kNN (%)": (50.0, 48.0, 52.0)}
FELL = losses(5.5, 3.0, 1.9)

WORKING: dict[str, tuple[Record, str, str]] = {
    "nothing written": (record(), "no_loss", "unsure"),
    "step 0 alone": (read(3.0, 3.0, last=0), "no_loss", "unsure"),
    "loss alone": (FELL, "loss_only", "unsure"),
    "negative loss without chance": (losses(-0.2, -0.9, chance=None), "loss_only", "unsure"),
    "at chance": (losses(6.0, 5.6, 5.42), "at_chance_level", "bad"),
    "stuck there": (losses(6.0, 5.6, 5.52), "alarms", "bad"),
    "at chance early": (losses(5.52, every=50), "too_early", "unsure"),
    "not a number at the end": (losses(5.5, 3.0, NAN, NAN), "loss_not_a_number", "bad"),
    "never a number": (losses(NAN), "loss_not_a_number", "bad"),
    "not a number once": (record(losses(5.5, NAN, 2.0), probed(40, 50, 60, 60)), "better", "good"),
    "neighbors better": (record(FELL, probed(40, 50, 60, 60)), "better", "good"),
    "neighbors worse, loss fell": (record(FELL, probed(60, 50, 50, 50)), "worse", "bad"),
    "worse soon": (record(losses(3.0, every=10), probed(60, 40, every=10)), "worse", "bad"),
    "better soon": (record(losses(3.0, every=10), probed(40, 60, every=10)), "better", "good"),
    "better on few samples": (record(FELL, probed(40, 50, 50, 50, samples=40)), "cannot_tell", "unsure"),
    "a little worse on few": (record(FELL, probed(50, 50, 50, 45, samples=40)), "cannot_tell", "unsure"),
    "unknown size, clear": (
        record(FELL, probed(40, 60, 60, 60, samples=None), config={"samples": 9000}),
        "better",
        "good",
    ),
    "unknown size, small": (
        record(FELL, probed(40, 50, 50, 50, samples=None), config={"samples": 400}),
        "cannot_tell",
        "unsure",
    ),
    "unknown size": (record(FELL, probed(40, 60, 60, 60, samples=None)), "cannot_tell", "unsure"),
    "early and open": (record(losses(3.0, every=10), probed(50, 51, every=10)), "too_early", "unsure"),
    "the same answers": (
        record(losses(3.0, 2.0, 1.9, 1.9, 1.9), answered(50, 50, 50, 50, samples=1000)),
        "unchanged",
        "bad",
    ),
    "paired answers": (record(FELL, answered(50, 52, 55, 55)), "better", "good"),
    "the same numbers unpaired": (record(FELL, probed(50, 52, 55, 55, samples=400)), "cannot_tell", "unsure"),
    "at chance, neighbors open": (record(losses(6.0, 5.6, 5.42), probed(50, 51, 51, 51)), "at_chance_level", "bad"),
    "no step 0": (record(FELL, probed(40, 60, begin=1)), "no_start", "unsure"),
    "no step 0, evaluated": (
        record(FELL, probed(40, 60, begin=1), compared(three(70, 80, 40), BASE)),
        "better",
        "good",
    ),
    "evaluated worse": (record(FELL, compared(three(40, 80, 40), BASE)), "worse", "bad"),
    "probe open, evaluated better": (record(FELL, probed(50, 51), compared(three(70, 70, 40), BASE)), "better", "good"),
    "probe and evaluate apart": (record(FELL, probed(50, 70), compared(three(40, 70, 40), BASE)), "disagree", "unsure"),
    "paired in evaluate": (
        record(FELL, compared({"kNN (%)": (52.0, 50.0, 54.0)}, KNN, gains={"kNN (%)": (2.0, 1.0, 3.0)})),
        "better",
        "good",
    ),
    "supervised": (record(FELL, probed(40, 60), **LABELS), "better", "good"),
    "supervised without a probe": (record(FELL, **LABELS), "own_labels", "unsure"),
    "supervised, evaluated on its labels": (
        record(FELL, compared(three(70, 80, 40), BASE, seen={"samples": 9, "of": 9, "with labels": True}), **LABELS),
        "own_labels",
        "unsure",
    ),
    "supervised, evaluated on its labels, worse all the same": (
        record(FELL, compared(three(40, 80, 40), BASE, seen={"samples": 9, "of": 9, "with labels": True}), **LABELS),
        "worse",
        "bad",
    ),
    "supervised, evaluated on others": (
        record(FELL, compared(three(70, 80, 40), BASE, seen={"samples": 0, "of": 9, "with labels": True}), **LABELS),
        "better",
        "good",
    ),
    "no labels, task learned": (record(FELL, read(5, 60, 80)), "task_learned", "unsure"),
    "no labels, narrowed": (record(FELL, read(5, 60, 80, rank=(30, 20, 9))), "narrowed", "unsure"),
    "no labels, task lost": (record(FELL, read(60, 30, 20)), "task_lost", "bad"),
    "no labels, unchanged": (record(FELL, read(20, 21, 22)), "task_unchanged", "unsure"),
    "no labels, early": (record(losses(3.0, every=10), read(20, 21, 22, last=10)), "too_early", "unsure"),
    "no labels, one view": (
        record(FELL, {"metrics": [{"step": s, "effective_rank": 9.0, "spread": 0.5} for s in (0, 300)]}),
        "loss_only",
        "unsure",
    ),
    "no labels, at chance": (record(losses(6.0, 5.6, 5.42), read(5, 60, 80)), "at_chance_level", "bad"),
    "collapsed": (record(FELL, read(5, 5, 5, rank=(30, 10, 1))), "alarms", "bad"),
    "collapsed, neighbors worse": (record(FELL, read(5, 5, rank=(30, 1)), probed(60, 40)), "worse", "bad"),
    "collapsed, neighbors better": (
        record(FELL, read(5, 5, rank=(30, 1)), probed(40, 60)),
        "alarms_yet_better",
        "unsure",
    ),
    "lonely": (
        record(FELL, {"metrics": [{"step": s, "loss": 5.0, "with_positive": 0.01} for s in range(1, 9)]}),
        "alarms",
        "unsure",
    ),
    "starved, neighbors better": (
        record(FELL, probed(40, 60), {"metrics": [{"step": s, "loss": 5.0, "input_share": 0.9} for s in range(1, 9)]}),
        "better",
        "good",
    ),
    "stopped": (record(FELL, probed(40, 60), **STOPPED), "better", "good"),
    "classifier that names well": (classifier(53.0, 64.3), "no_loss", "unsure"),
}

HELPING: dict[str, tuple[Record, str, str, dict[str, int]]] = {
    "all better": (compared(three(70, 80, 50), BASE), "helps", "good", {"ahead": 3}),
    "all worse": (compared(three(40, 50, 20), BASE), "harms", "bad", {"behind": 3}),
    "neighbors up, few labels down": (compared(three(70, 60, 20), BASE), "mixed", "unsure", {"ahead": 1, "behind": 1}),
    "one better, others open": (compared(three(70, 61, 31), BASE), "helps", "good", {"ahead": 1, "open": 2}),
    "one worse, others open": (compared(three(51, 61, 20), BASE), "harms", "bad", {"behind": 1, "open": 2}),
    "better than untrained, raw as good": (compared(three(70, 70, 70), BASE, raw=70), "as_good", "bad", {"open": 3}),
    "better than untrained, raw better": (compared(three(70, 80, 40), BASE, raw=90), "harms", "bad", {"behind": 3}),
    "as good": (compared(three(50, 60, 30, half=0.5), BASE, gains=three(0, 0.5, -0.5, half=1)), "as_good", "bad", {}),
    "a little better, few samples": (compared(three(53, 63, 33, half=9), BASE), "too_few", "unsure", {"open": 3}),
    "a little worse, few samples": (compared(three(49, 59, 29, half=9), BASE), "too_few", "unsure", {"open": 3}),
    "paired": (
        compared(three(52, 62, 32), BASE, gains=three(2, 2, 2, half=1)),
        "helps",
        "good",
        {"ahead": 3},
    ),
    "no intervals": (
        compared({"kNN (%)": (81.5, None, None)}, {"kNN (%)": (80.0, 78.0, 82.0)}),
        "no_intervals",
        "unsure",
        {},
    ),
    "its own labels": (
        compared(three(90, 90, 90), BASE, seen={"samples": 9, "of": 10, "with labels": True}),
        "seen_labels",
        "unsure",
        {},
    ),
    "worse on its own labels": (
        compared(three(40, 50, 30), BASE, seen={"samples": 9, "of": 10, "with labels": True}),
        "harms",
        "bad",
        {"behind": 2},
    ),
    "seen without labels": (
        compared(three(90, 90, 90), BASE, seen={"samples": 9, "of": 10, "with labels": False}),
        "helps",
        "good",
        {},
    ),
    "only the probe": (probed(40, 60), "only_knn", "unsure", {}),
    "nothing": (record(), "not_measured", "unsure", {}),
}

CHECKPOINT: dict[str, tuple[Record, str, str]] = {
    "no labels": (record(FELL), "no_labels", "unsure"),
    "step 0 alone": (probed(40), "no_labels", "unsure"),
    "one": (probed(40, 60), "take_last", "good"),
    "the last is best": (probed(40, 50, 60), "take_last", "good"),
    "fell by much": (probed(40, 60, 50), "accuracy_fell", "unsure"),
    "fell by much, few samples": (probed(40, 60, 50, samples=50), "not_told_apart", "unsure"),
    "of two that differ by 5": (probed(40, 60, 55), "accuracy_fell", "unsure"),
    "of thirty that differ by 5": (probed(40, *[54] * 28, 60, 55), "not_told_apart", "unsure"),
    "fell by little, paired": (answered(40, 60, 55), "accuracy_fell", "unsure"),
    "the same numbers unpaired": (probed(40, 60, 55, samples=400), "not_told_apart", "unsure"),
    "two points on few samples": (probed(40, 60, 58.5, samples=50), "not_told_apart", "good"),
    "as good as the best": (answered(40, 60.1, 60, samples=1000), "take_last", "good"),
    "worse than untrained": (probed(60, 50, 48), "none", "bad"),
    "evaluated worse": (record(FELL, probed(50, 50, 51), compared(three(40, 80, 40), BASE)), "last_is_worse", "bad"),
    "evaluated worse, but fell": (
        record(FELL, probed(50, 70, 55), compared(three(40, 80, 40), BASE)),
        "accuracy_fell",
        "unsure",
    ),
    "below untrained, few samples": (probed(60, 50, 55, samples=40), "not_above_start", "unsure"),
    "as untrained": (answered(50, 50, 50), "not_above_start", "unsure"),
    "below untrained, but fell": (probed(70, 69, 40), "accuracy_fell", "unsure"),
    "size unknown": (probed(40, 60, 50, samples=None), "not_told_apart", "unsure"),
    "no step 0": (probed(60, 40, begin=1), "accuracy_fell", "unsure"),
}


@pytest.mark.parametrize("name", WORKING)
def test_is_it_working(name: str) -> None:
    made, finding, mood = WORKING[name]
    found = answers(made)[0]
    assert (found.finding, found.mood) == (finding, mood)
    assert words(found)


@pytest.mark.parametrize("name", WORKING)
def test_a_run_in_which_nothing_helped_says_so_as_the_card_does(name: str) -> None:
    made = WORKING[name][0]
    found, line = answers(made)[0], unhelped(made)
    if gain := found.facts.get("gain"):
        assert bool(line) == (gain.judged != "ahead" and (found.mood == "bad" or gain.last <= gain.first))
    else:
        assert not line
    assert line.endswith({"bad": "did not help.", "unsure": "no gain is seen.", "good": ""}[found.mood] if line else "")
    assert (name == "neighbors worse, loss fell") <= line.endswith(
        " 50.0 %, before training 60.0 %: training did not help."
    )


@pytest.mark.parametrize("name", HELPING)
def test_will_it_help_me(name: str) -> None:
    made, finding, mood, counts = HELPING[name]
    found = answers(made)[1]
    assert (found.finding, found.mood) == (finding, mood)
    assert {key: len(found.facts[key]) for key in counts} == counts
    assert words(found)


MEASURED = {"measured": True, "runs": 36, "data": ["a", "b"], "accuracy": "linear probe", "regret": 0.6}
MEASURED |= {"regret_last": 1.9, "gain": {"mean": 1.3, "low": 0.4, "high": 2.2}, "picks": {"a": "rankme", "b": "last"}}
UNBEATEN = {"scores": [], "picks": {"a": "last", "b": "loss"}, "gain": {"mean": 0.0, "low": 0.0, "high": 0.0}}


def scored(*rankme: float, files: tuple[int, ...] = (1, 2)) -> Record:
    """Checkpoints of three epochs with a score, of which the last is the newest, and some others stay."""
    lines = [{"step": 100 * e, "epoch": float(e), "scored_rankme": value} for e, value in enumerate(rankme)]
    return record(
        FELL,
        {"metrics": lines, "config": {"made": {"steps": 300}, "settings": {"epochs": 3}}},
        {"checkpoints": ["best.pt", "step-000000300.pt", *(f"epoch-{e:06d}.pt" for e in files)]},
    )


@pytest.mark.parametrize(
    ("made", "known", "finding", "said"),
    [
        (
            scored(9, 2, 7, 5),
            {"scores": ["rankme"]},
            "by_score",
            "Take the one after epoch 2 (--checkpoint auto): of 3",
        ),
        (scored(9, 2, 5, 7), {"scores": ["rankme"]}, "by_score", "Take last: of 3 checkpoints RankMe finds it best."),
        (scored(9, 7, 2, 5, files=(2,)), {"scores": ["rankme"]}, "by_score", "Take last: of 2 checkpoints"),
        (scored(9, 2, 7, 5), {"scores": []}, "no_score", "Take last. In 36 runs on 2 data sets"),
        (scored(9, 2, 7, 5), UNBEATEN, "no_score", "1.9 points of linear probe accuracy below the best by labels"),
        (scored(9, 2, 7, 5), {"scores": ["lidar"]}, "no_labels", "Take last. Without labels"),
        (scored(9, 2, 7, 5), {"scores": ["rankme"], "measured": False}, "no_labels", "Take last. Without labels"),
        (scored(9, 2, files=(1,)), {"scores": ["rankme"]}, "no_labels", "Take last. Without labels"),
        (record(scored(9, 2, 7, 5), probed(40, 50, 60, 70)), {"scores": ["rankme"]}, "take_last", "Take last"),
    ],
)
def test_without_labels_scores_choose_as_far_as_they_were_seen_to(
    made: Record, known: dict[str, Any], finding: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (verdict, choice):
        monkeypatch.setattr(module, "validated", lambda: MEASURED | known)
    found = answers(made)[2]
    assert found.finding == finding
    text = " ".join(spoken(made)[2].split()).replace("`", "")
    assert said in text
    numbers = ("+1.3 points", "+0.4 to +2.2")
    told = finding == "by_score" or (finding == "no_score" and known is not UNBEATEN)
    assert all((number in text) == told for number in numbers)
    assert "+0.0" not in text  # of a choice that is the last one whatever is measured
    assert ("0.6 below the best by labels, where the last was 1.9" in text) == (finding == "by_score")


@pytest.mark.parametrize("name", CHECKPOINT)
def test_which_checkpoint(name: str) -> None:
    made, finding, mood = CHECKPOINT[name]
    found = answers(made)[2]
    assert (found.finding, found.mood) == (finding, mood)
    assert words(found)


CLASSIFIERS: list[tuple[Record, int, str, str, dict[str, Any]]] = [
    (classifier(53.0, 64.3), 1, "above_frequent", "good", {"frequent": 50.0, "places": 1}),
    (classifier(49.0, 64.3), 1, "not_above_frequent", "unsure", {}),
    (classifier(30.0, 40.0), 1, "not_above_frequent", "bad", {}),
    (classifier(None, None), 1, "accuracy_alone", "unsure", {}),
    (unmeasured(), 1, "no_test_split", "unsure", {}),
    (classifier(53.0, 64.3), 2, "calibration", "good", {"how": "temperature fitted on 150 labels", "error": 7.787}),
    (unmeasured(calibration="not calibrated: few"), 2, "calibration", "unsure", {"error": None}),
    (unmeasured(), 2, "calibration", "unsure", {"how": ""}),
]


@pytest.mark.parametrize(("made", "place", "finding", "mood", "facts"), CLASSIFIERS)
def test_of_a_classifier(made: Record, place: int, finding: str, mood: str, facts: dict[str, Any]) -> None:
    found = answers(made)[place]
    assert (found.finding, found.mood) == (finding, mood)
    assert {name: found.facts[name] for name in facts} == pytest.approx(facts)
    assert words(found)


@pytest.mark.parametrize(("low", "high", "mood"), [(53.0, 64.3, "good"), (49.0, 64.3, "unsure"), (30.0, 40.0, "bad")])
def test_a_classifier_works_where_its_test_says_so(low: float, high: float, mood: str) -> None:
    made = classifier(low, high)
    made.metrics = FELL.metrics
    found = answers(made)[0]
    assert (found.finding, found.mood) == ("fits_labels", mood)
    assert words(found)
    made.metrics = losses(6.0, 5.6, 5.42).metrics
    assert answers(made)[0].finding == "at_chance_level"


def test_the_numbers_of_a_gain_are_shown() -> None:
    found = answers(record(FELL, probed(40, 50, 60, 60)))[0]
    gain = found.facts["gain"]
    assert (gain.first, gain.last, gain.samples) == (40, 60, 1000)
    assert gain.interval.mean == pytest.approx(20)
    assert gain.interval.low == pytest.approx(20 - 1.96 * (0.24 / 1000 * 2) ** 0.5 * 100, abs=0.2)
    for text in ("40.0", "60.0", "+20.0", "1,000 samples"):
        assert text in words(found)


def test_of_two_gains_that_of_more_samples_is_shown() -> None:
    for tested in (30, 500):
        table = compared({"kNN (%)": (51.0, 47.0, 55.0)}, KNN, seen={"samples": 0, "of": tested})
        made = record(losses(3.0, every=10), probed(50, 51, samples=40, every=10), table)
        assert answers(made)[0].facts["gain"].samples == max(40, tested)


def test_groups_widen_a_gain_as_they_widen_the_probe() -> None:
    one, many = (answered(50, 53, 55), answered(50, 53, 55))
    for line in many.metrics:  # as of samples ten of which belong together
        line |= {"knn_low": line["knn"] - 15, "knn_high": line["knn"] + 15}
    alone, grouped = (answers(made)[0].facts["gain"].interval for made in (record(FELL, one), record(FELL, many)))
    assert (grouped.high - grouped.low) / (alone.high - alone.low) == pytest.approx(30 / 9.73, abs=0.02)
    assert grouped.low < 0 < alone.low


def test_every_alarm_of_the_log_is_shown() -> None:
    lines = [{"step": s, "loss": 5.0, "input_share": 0.9} for s in range(1, 9)]
    for made in (
        record(FELL, read(5, 5, rank=(30, 1)), {"metrics": lines}),
        record(FELL, probed(40, 60), {"metrics": lines}),
    ):
        found = answers(made)[0]
        assert found.facts["alarms"][-1][0] == "input starvation"
        for name, text in found.facts["alarms"]:
            assert name.capitalize() in words(found)
            assert text.split("`")[0] in words(found)


def test_a_stopped_run_says_so() -> None:
    found = answers(record(FELL, probed(40, 60), **STOPPED))[0]
    assert found.facts["stopped"] is True
    assert "step 300" in words(found)
    assert "step 300" not in words(answers(record(FELL, probed(40, 60)))[0])


def test_few_steps_are_few() -> None:
    for steps, finding in ((FEW_STEPS - 1, "too_early"), (FEW_STEPS, "cannot_tell")):
        lines = [{"step": s, "epoch": 1.0, "knn": k, "knn_samples": 200} for s, k in ((0, 50.0), (steps, 51.0))]
        assert answers(record({"metrics": [*lines, {"step": steps, "loss": 1.0}]}))[0].finding == finding


def test_one_of_several_results_is_judged_and_named() -> None:
    """The newest of the run's own data; one whose labels were learned from only if there is no other."""
    better, worse = three(70, 80, 50), three(40, 50, 20)
    learned = {"samples": 9, "of": 9, "with labels": True}

    def judged(*rows: tuple[dict[str, Any], dict[str, Any]]) -> tuple[str, str, str]:
        tables = [compared(ours, BASE, seen=own.pop("seen", None)).tables["evaluate"] | own for ours, own in rows]
        made = in_order(record(FELL, {"tables": {f"evaluate-{i}": table for i, table in enumerate(tables)}}))
        working, helping, _ = answers(made)
        return working.finding, helping.finding, words(helping)

    def of(data: str, day: int, own: bool = False, **more: Any) -> dict[str, Any]:
        return {"data": data, "own": own, "written": f"2026-01-{day:02}T10:00:00+00:00", **more}

    *found, said = judged((worse, of("old", 1, True)), (better, of("new", 2, True)), (worse, of("other", 3)))
    assert found == ["better", "helps"]
    assert "Of 3 results this is the newest on the run&#39;s own data &#39;new&#39;." in said
    assert judged((better, of("old", 1, True)), (worse, of("new", 2, True)))[:2] == ("worse", "harms")
    assert judged((better, of("old", 1)), (worse, of("new", 2)))[:2] == ("worse", "harms")
    *found, said = judged((worse, of("seen", 2, True, seen=learned)), (better, of("other", 1)))
    assert found[1] == "helps"
    assert "newest on &#39;other&#39;" in said
    assert judged((worse, of("seen", 2, True, seen=learned)))[1] == "harms"  # though that flatters it
    *_, said = judged((better, of("one", 1, True)))
    assert "results" not in said


def test_the_terminal_says_what_the_card_says() -> None:
    made = record(FELL, probed(40, 60, 50), compared(three(70, 60, 20), BASE))
    lines = spoken(made)
    assert [line.split("? ")[0] for line in lines] == ["Is it working", "Will it help me", "Which checkpoint"]
    for line, answer in zip(lines, answers(made), strict=True):
        plain = re.sub("</?span[^>]*>", "", re.sub("</?code>", "`", words(answer)))
        assert line.split("? ", 1)[1] == " ".join(plain.split())
    assert not any(sign in "".join(lines) for sign in "<>\n")


def test_names_cannot_write_into_the_page() -> None:
    made = compared(three(70, 80, 50), BASE)
    made.tables["evaluate"]["rows"][1]["name"] = "<b>raw</b>"
    found = answers(made)[1]
    assert "&lt;b&gt;" in words(found)
    assert "<b>raw</b>" in spoken(made)[1]


def test_an_answer_without_words_is_an_error() -> None:
    import jinja2

    with pytest.raises(jinja2.UndefinedError):
        words(Answer("working", "of no kind", "good"))


def words(answer: Answer) -> str:
    return html.environment().get_template("verdict.html").module.words(answer.finding, answer.facts).strip()  # pyright: ignore[reportAttributeAccessIssue]


GIVEN = {"config": {"made": {"given": "weights.pth"}}, "checkpoints": ["best.pt"]}


@pytest.mark.parametrize(
    ("knn", "finding", "mood", "said"),
    [
        ((80, 60, 50), "start", "bad", "Do not continue: take the weights as they were given, which `best` is"),
        ((80, 60, 80), "start", "unsure", "No gain is seen: take the weights as they were given"),
        ((80, 80, 80), "start", "unsure", "No gain is seen"),
        ((60, 80, 80), "take_last", "good", "Take `last`"),
        ((60, 80, 70), "accuracy_fell", "unsure", "Take `best`, the one after epoch 1"),
    ],
)
def test_given_weights_may_be_the_best(knn: tuple[float, ...], finding: str, mood: str, said: str) -> None:
    found = record(losses(3.0, 2.0), answered(*knn), GIVEN)
    (answer,) = [one for one in answers(found) if one.topic == "checkpoint"]
    assert (answer.finding, answer.mood) == (finding, mood)
    assert said in " ".join(spoken(found))
    fell = "below the given weights" in {name for name, _ in answers(found)[0].facts["alarms"]}
    assert fell == (knn[-1] < knn[0] - 5)


def test_gains_are_over_given_weights_where_there_are_such() -> None:
    column = {"kNN (%)": (70.0, 68.0, 72.0)}
    found = compared(column, {"kNN (%)": (40.0, 38.0, 42.0)})
    (table,) = found.tables.values()
    given = {"name": "given weights", "values": {"kNN (%)": {"value": 85.0, "low": 83.0, "high": 87.0}}}
    table["rows"].insert(2, given)
    found = record(losses(3.0, 2.0, 1.0), found, GIVEN)
    assert answers(found)[0].finding == "worse"
    assert (answers(found)[1].finding, answers(found)[1].facts["behind"][0]["best"]) == ("harms", "given weights")
