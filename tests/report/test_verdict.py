from pathlib import Path
from typing import Any

import pytest

from nearfar.report.record import Record
from nearfar.report.verdict import answers, checkpoint, helping, working


def losses(*values: float, chance: float | None = 5.5) -> Record:
    return Record(Path(), metrics=[{"step": i, "loss": v, "chance": chance} for i, v in enumerate(values)])


@pytest.mark.parametrize(
    ("record", "mood", "said"),
    [
        (Record(Path()), "unsure", "no loss"),
        (losses(5.5, 3.0, 1.9), "good", "The loss fell from 5.5 (chance 5.5) to 1.9."),
        (losses(6.0, 5.6, 5.52), "bad", "The loss is 5.52 and chance, the loss of a model that knows nothing, is 5.5."),
        (losses(5.5, 3.0, float("nan"), float("nan")), "bad", "from step 2 on"),
        (losses(float("nan")), "bad", "from step 0 on"),
        (losses(5.5, float("nan"), 2.0), "good", "to 2."),
        (losses(-0.2, -0.9, chance=None), "good", "from -0.2 to -0.9. This method has no chance value"),
        (losses(0.2, 0.2, chance=None), "unsure", "no chance value"),
    ],
)
def test_working_is_judged_against_chance(record, mood, said):
    answer = working(record)
    assert answer.mood == mood
    assert said in answer.text


def compared(ours: tuple[float | None, ...], theirs: tuple[float | None, ...]) -> Record:
    rows: list[dict[str, Any]] = [
        {"name": "raw pixels", "values": {"kNN (%)": {"value": 1.0, "low": 0.5, "high": 1.5}}},
        {"name": "untrained", "values": {"kNN (%)": dict(zip(("value", "low", "high"), theirs, strict=True))}},
        {"name": "trained", "values": {"kNN (%)": dict(zip(("value", "low", "high"), ours, strict=True))}},
    ]
    return Record(Path(), tables={"demo": {"title": "", "columns": ["kNN (%)"], "rows": rows}})


@pytest.mark.parametrize(
    ("record", "mood", "said"),
    [
        (
            compared((81.0, 79.0, 83.0), (52.0, 50.0, 54.0)),
            "good",
            "trained 81 (79 to 83); the best of the rest, untrained",
        ),
        (compared((52.0, 50.0, 54.0), (81.0, 79.0, 83.0)), "bad", "No."),
        (compared((81.5, 79.0, 83.0), (80.0, 78.0, 82.0)), "unsure", "overlap"),
        (compared((81.5, None, None), (80.0, 78.0, 82.0)), "unsure", "Without intervals"),
        (
            Record(Path(), metrics=[{"step": 1, "knn": 40.0}, {"step": 2, "knn": 60.0}]),
            "unsure",
            "from 40.0 % to 60.0 %",
        ),
        (Record(Path()), "unsure", "a few labels"),
    ],
)
def test_helping_is_judged_by_intervals(record, mood, said):
    answer = helping(record)
    assert answer.mood == mood
    assert said in answer.text


@pytest.mark.parametrize(
    ("knn", "mood", "said"),
    [
        ([], "unsure", "No labels: `last` is the only checkpoint to take."),
        ([40.0, 60.0, 59.5], "good", "Take `last`: its kNN accuracy, 59.5 %"),
        ([40.0, 60.0, 50.0], "unsure", "Look at epoch 1: kNN accuracy was 60.0 % there and fell to 50.0 % at the end."),
    ],
)
def test_the_checkpoint_is_the_last_unless_the_probe_fell(knn, mood, said):
    answer = checkpoint(Record(Path(), metrics=[{"step": i, "epoch": i, "knn": v} for i, v in enumerate(knn)]))
    assert answer.mood == mood
    assert said in answer.text


def classifier(low: float, high: float, calibration: str, **tables) -> Record:
    cells = {"accuracy (%)": {"value": 59.0, "low": low, "high": high}}
    cells |= {"calibration error (%)": {"value": 7.787, "low": None, "high": None}}
    table = {"title": "", "columns": list(cells), "rows": [{"name": "this classifier", "values": cells}]}
    table |= {"confusion": {"classes": ["a", "b"], "counts": [[0, 0, 40], [0, 1, 10], [1, 1, 30], [1, 0, 20]]}}
    return Record(Path(), classifier={"classes": 2, "calibration": calibration}, tables={"finetune": table} | tables)


@pytest.mark.parametrize(
    ("low", "high", "mood", "said"),
    [
        (
            53.0,
            64.3,
            "good",
            "Better than chance. 59.0 % of the test samples are named right, 95 % interval 53.0 to 64.3;",
        ),
        (49.0, 64.3, "unsure", "always naming the most frequent class would give 50.0 %."),
        (30.0, 40.0, "bad", "Not shown."),
    ],
)
def test_a_classifier_is_judged_against_the_most_frequent_class(low, high, mood, said):
    _, naming, trusting = answers(classifier(low, high, "temperature fitted on 150 labeled rows"))
    assert naming.mood == mood
    assert said in naming.text
    assert trusting.mood == "good"
    assert trusting.text.endswith("150 labeled rows. On the test split they are off by 7.8 points on average.")


def test_a_classifier_that_was_not_tried_or_calibrated_says_so():
    record = classifier(53.0, 64.3, "not calibrated: there are too few labels")
    record.tables = {}
    _, naming, trusting = answers(record)
    assert (naming.mood, trusting.mood) == ("unsure", "unsure")
    assert naming.text == "Not known: the labels name no split `test` to try it on."
    assert trusting.text == "Not calibrated: there are too few labels."
