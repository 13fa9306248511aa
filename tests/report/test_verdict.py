from pathlib import Path
from typing import Any

import pytest

from nearfar.report.record import Record
from nearfar.report.verdict import checkpoint, helping, working


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
