from pathlib import Path
from typing import Any

import pytest
from fake_run import HOSTILE

from nearfar.report.confusion import MOST, confusion
from nearfar.report.record import Record


def counted(counts: list[list[int]], classes: list[str]) -> Record:
    table: dict[str, Any] = {"title": "Accuracy", "columns": ["a"], "rows": [{"name": "x", "values": {}}]}
    return Record(Path(), tables={"t": table | {"confusion": {"by": "kNN", "classes": classes, "counts": counts}}})


def test_the_most_confused_pairs_are_named_most_samples_first() -> None:
    page = confusion(
        counted([[0, 0, 9], [0, 1, 1], [1, 1, 5], [1, 2, 5], [2, 0, 5], [2, 2, 95]], ["cat", "dog", "fox"])
    )
    told = page[page.index("<ol") :]
    places = [told.index(text) for text in ("5 of 10 · 50 %", "5 of 100 · 5 %", "1 of 10 · 10 %")]
    assert places == sorted(places)
    assert told.index("<b>dog</b> taken for <b>fox</b>") < places[0]
    assert 'title="dog, taken for fox: 5 of 10 (50 %)"' in page
    assert 'title="cat, right: 9 of 10 (90 %)"' in page


def test_where_nothing_was_counted_there_is_no_part() -> None:
    assert confusion(Record(Path())) == ""
    assert confusion(Record(Path(), tables={"t": {"title": "", "columns": [], "rows": []}})) == ""


def test_a_flawless_result_says_so() -> None:
    assert "No sample was taken for another class." in confusion(counted([[0, 0, 9], [1, 1, 2]], ["cat", "dog"]))


@pytest.mark.parametrize("extra", [0, 30])
def test_of_many_classes_the_most_confused_are_drawn(extra: int) -> None:
    classes = [f"class {c}" for c in range(MOST + extra)]
    counts = [[c, c, 50] for c in range(len(classes))] + [[c, c + 1, 3] for c in range(extra, len(classes) - 1)]
    page = confusion(counted(counts, classes))
    assert page.count('scope="row"') == MOST
    assert f'title="class {extra}"' in page
    assert (f"The {MOST} of {len(classes)} classes with the most mistakes." in page) == bool(extra)
    assert ('title="class 0"' in page) == (not extra)


def test_labels_are_escaped() -> None:
    page = confusion(counted([[0, 0, 9], [0, 1, 2]], [HOSTILE, f"other{HOSTILE}"]))
    assert "<script" not in page
    assert "<img" not in page
    assert page.count("&lt;script&gt;") > 4
