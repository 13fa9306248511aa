from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from nearfar.report import html
from nearfar.report.record import Record
from nearfar.report.verdict import Answer, answers

NAN = math.nan


def losses(*values: float, chance: float | None = 5.5) -> Record:
    return Record(Path(), metrics=[{"step": i, "loss": v, "chance": chance} for i, v in enumerate(values)])


def probed(*knn: float, epochs: float = 0) -> Record:
    lines = [{"step": i, "knn": v} | ({"epoch": i * epochs} if epochs else {}) for i, v in enumerate(knn)]
    return Record(Path(), metrics=lines)


def compared(ours: tuple[float | None, ...], theirs: tuple[float | None, ...]) -> Record:
    named = {"raw": (1.0, 0.5, 1.5), "untrained": theirs, "trained": ours}
    rows: list[dict[str, Any]] = [
        {"name": name, "values": {"kNN (%)": dict(zip(("value", "low", "high"), numbers, strict=True))}}
        for name, numbers in named.items()
    ]
    return Record(Path(), tables={"demo": {"title": "", "columns": ["kNN (%)"], "rows": rows}})


def classifier(low: float | None, high: float | None, how: str = "temperature fitted on 150 labels") -> Record:
    values = {"accuracy (%)": {"value": 59.0, "low": low, "high": high}}
    values |= {"calibration error (%)": {"value": 7.787, "low": None, "high": None}}
    table = {"title": "", "columns": list(values), "rows": [{"name": "this classifier", "values": values}]}
    table |= {"confusion": {"classes": ["a", "b"], "counts": [[0, 0, 40], [0, 1, 10], [1, 1, 30], [1, 0, 20]]}}
    return Record(Path(), classifier={"classes": 2, "calibration": how}, tables={"finetune": table})


def unmeasured(**facts: object) -> Record:
    return Record(Path(), classifier={"classes": 2, **facts})


CASES: list[tuple[Record, int, str, str, dict[str, Any]]] = [
    (Record(Path()), 0, "no_loss", "unsure", {}),
    (losses(5.5, 3.0, 1.9), 0, "loss_fell", "good", {"first": 5.5, "last": 1.9, "chance": 5.5}),
    (losses(6.0, 5.6, 5.52), 0, "at_chance_level", "bad", {"last": 5.52, "chance": 5.5}),
    (losses(5.5, 3.0, NAN, NAN), 0, "loss_not_a_number", "bad", {"step": 2}),
    (losses(NAN), 0, "loss_not_a_number", "bad", {"step": 0}),
    (losses(5.5, NAN, 2.0), 0, "loss_fell", "good", {"first": 5.5, "last": 2.0, "chance": 5.5}),
    (losses(-0.2, -0.9, chance=None), 0, "no_chance_level", "good", {"first": -0.2, "last": -0.9}),
    (losses(0.2, 0.2, chance=None), 0, "no_chance_level", "unsure", {"first": 0.2, "last": 0.2}),
    (
        compared((81.0, 79.0, 83.0), (52.0, 50.0, 54.0)),
        1,
        "better",
        "good",
        {"best_name": "untrained"},
    ),
    (compared((52.0, 50.0, 54.0), (81.0, 79.0, 83.0)), 1, "worse", "bad", {"column": "kNN (%)", "places": 0}),
    (compared((81.5, 79.0, 83.0), (80.0, 78.0, 82.0)), 1, "overlap", "unsure", {"places": 1}),
    (compared((81.5, None, None), (80.0, 78.0, 82.0)), 1, "no_intervals", "unsure", {}),
    (probed(40.0, 60.0), 1, "only_knn", "unsure", {"first": 40.0, "last": 60.0}),
    (Record(Path()), 1, "not_measured", "unsure", {}),
    (Record(Path()), 2, "no_labels", "unsure", {}),
    (probed(40.0, 60.0, 59.5), 2, "take_last", "good", {"last": 59.5}),
    (probed(40.0, 60.0, 50.0), 2, "accuracy_fell", "unsure", {"best": 60.0, "last": 50.0, "epoch": None, "step": 1}),
    (probed(40.0, 60.0, 50.0, epochs=0.5), 2, "accuracy_fell", "unsure", {"epoch": 0.5}),
    (classifier(53.0, 64.3), 1, "above_frequent", "good", {"frequent": 50.0, "places": 1}),
    (classifier(49.0, 64.3), 1, "not_above_frequent", "unsure", {}),
    (classifier(30.0, 40.0), 1, "not_above_frequent", "bad", {}),
    (classifier(None, None), 1, "accuracy_alone", "unsure", {}),
    (unmeasured(), 1, "no_test_split", "unsure", {}),
    (classifier(53.0, 64.3), 2, "calibration", "good", {"how": "temperature fitted on 150 labels", "error": 7.787}),
    (unmeasured(calibration="not calibrated: few"), 2, "calibration", "unsure", {"error": None}),
    (unmeasured(), 2, "calibration", "unsure", {"how": ""}),
]


@pytest.mark.parametrize(("record", "place", "finding", "mood", "facts"), CASES)
def test_the_answer_follows_from_the_numbers(
    record: Record, place: int, finding: str, mood: str, facts: dict[str, Any]
) -> None:
    answer = answers(record)[place]
    assert (answer.finding, answer.mood) == (finding, mood)
    assert {name: answer.facts[name] for name in facts} == pytest.approx(facts)
    assert words(answer)


def test_alarms_come_before_the_loss() -> None:
    (answer, *_) = answers(losses(*[5.5] * 300))
    assert (answer.finding, answer.mood) == ("alarms", "bad")
    name, text = answer.facts["alarms"][0]
    assert name.capitalize() in words(answer)
    assert text.split("`")[0] in words(answer)


def test_an_answer_without_words_is_an_error() -> None:
    import jinja2

    with pytest.raises(jinja2.UndefinedError):
        words(Answer("working", "of no kind", "good"))


def words(answer: Answer) -> str:
    return html.environment().get_template("verdict.html").module.words(answer.finding, answer.facts).strip()  # pyright: ignore[reportAttributeAccessIssue]
