from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nearfar.report.confusion import MOST, PAIRS, Confusion, confusion, confusions
from nearfar.report.record import Record


def counted(counts: list[list[int]], classes: list[str]) -> Confusion:
    return confusion("Accuracy", {"by": "kNN", "classes": classes, "counts": counts})


def test_the_most_confused_pairs_come_first() -> None:
    made = counted([[0, 0, 9], [0, 1, 1], [1, 1, 5], [1, 2, 5], [2, 0, 5], [2, 2, 95]], ["cat", "dog", "fox"])
    assert [(pair.truth, pair.predicted, pair.n, pair.total, pair.percent) for pair in made.pairs] == [
        ("dog", "fox", 5, 10, 50),
        ("fox", "cat", 5, 100, 5),
        ("cat", "dog", 1, 10, 10),
    ]
    assert [[cell.n for cell in row] for row in made.rows] == [[9, 1, 0], [0, 5, 5], [5, 0, 95]]
    assert [[cell.right for cell in row] for row in made.rows] == [[i == j for j in range(3)] for i in range(3)]
    shades = [cell.shade for row in made.rows for cell in row]
    shares = [cell.share for row in made.rows for cell in row]
    assert sorted(range(9), key=shades.__getitem__) == sorted(range(9), key=shares.__getitem__)
    assert (made.title, made.by, made.classes) == ("Accuracy", "kNN", 3)


def test_only_results_that_counted_are_drawn() -> None:
    table: dict[str, Any] = {"title": "t", "columns": ["a"], "rows": []}
    counts = {"by": "", "classes": ["cat", "dog"], "counts": [[0, 0, 9], [0, 1, 2]]}
    record = Record(Path(), tables={"none": table, "some": table | {"confusion": counts}})
    (made,) = confusions(record)
    assert [[cell.n for cell in row] for row in made.rows] == [[9, 2], [0, 0]]  # no sample is a dog
    assert not counted([[0, 0, 9], [1, 1, 2]], ["cat", "dog"]).pairs


@pytest.mark.parametrize("extra", [0, 30])
def test_of_many_classes_the_most_confused_are_drawn(extra: int) -> None:
    classes = [f"class {c}" for c in range(MOST + extra)]
    counts = [[c, c, 50] for c in range(len(classes))] + [[c, c + 1, 3] for c in range(extra, len(classes) - 1)]
    made = counted(counts, classes)
    assert [row[0].truth for row in made.rows] == classes[extra:]
    assert (made.classes, len(made.pairs)) == (len(classes), PAIRS)
