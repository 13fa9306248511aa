from __future__ import annotations

import datetime
import json
import math

import pyarrow as pa
import pytest
import torch

from nearfar.modalities.table.columns import MOST_CATEGORIES, Columns


def people(n: int = 60) -> pa.Table:
    """Numbers with gaps, whole numbers, categories with gaps, and columns that say nothing."""
    return pa.table(
        {
            "height": [None if i % 10 == 0 else 150.0 + i for i in range(n)],
            "children": [i % 3 for i in range(n)],
            "town": [None if i % 7 == 0 else ("Ulm", "Bern", "Graz")[i % 3] for i in range(n)],
            "member": [i % 4 == 0 for i in range(n)],
            "since": [datetime.date(2020, 1, 1 + i % 20) for i in range(n)],
            "row": list(range(n)),
            "name": [f"person {i}" for i in range(n)],
            "planet": ["Earth"] * n,
            "nothing": pa.nulls(n, pa.float64()),
            "tags": [[i] for i in range(n)],
        }
    )


def test_what_each_column_becomes_and_which_are_left_out() -> None:
    columns, notes = Columns.learn(people())
    assert [c.name for c in columns.numbers] == ["height", "children", "since"]
    assert {c.name: c.values for c in columns.categories} == {
        "town": ("Bern", "Graz", "Ulm"),
        "member": ("false", "true"),
    }
    assert [c.gaps for c in columns.numbers] == [True, False, False]
    assert columns.width == 3 + 1 + 3 + 1 + 2
    assert len(notes) == 5
    for name in ("row", "name", "planet", "nothing", "tags"):
        assert any(repr(name) in note and "left out" in note for note in notes), name


def test_numbers_are_standardized_by_the_rows_that_were_learned_from() -> None:
    table = people()
    columns, _ = Columns.learn(table)
    numbers, codes, _ = columns.encode(table)
    known = numbers[~numbers[:, 0].isnan(), 0]
    assert len(known) == 54
    torch.testing.assert_close(known.mean(), torch.zeros(()), atol=1e-6, rtol=0)
    torch.testing.assert_close(known.std(correction=0), torch.ones(()))
    assert codes[0].tolist() == [3, 1]  # a missing town is the position after the last; row 0 is a member
    later, *_ = columns.encode(table.slice(50))
    torch.testing.assert_close(later, numbers[50:], equal_nan=True)


def test_what_was_never_seen_is_no_category() -> None:
    table = pa.table({"a": ["x", "y", "x"], "b": [1, 2, 3]})
    columns, _ = Columns.learn(table)
    _, codes, notes = columns.encode(pa.table({"a": ["z", None, "y"], "b": [1, 1, 1]}))
    assert codes[:, 0].tolist() == [-1, -1, 1]
    assert "1 values of 'a'" in notes[0]
    assert "'z'" in notes[0]


def test_codes_may_be_categories() -> None:
    columns, _ = Columns.learn(people(), categorical=("children",))
    assert next(c for c in columns.categories if c.name == "children").values == ("0", "1", "2")


def test_rare_categories_are_not_told_apart() -> None:
    words = [f"w{i}" for i in range(MOST_CATEGORIES + 5) for _ in range(2 + (i < MOST_CATEGORIES))]
    columns, notes = Columns.learn(pa.table({"word": words}))
    assert columns.width == MOST_CATEGORIES
    assert "most frequent are told apart" in notes[0]
    assert columns.encode(pa.table({"word": [f"w{MOST_CATEGORIES + 1}", "w0"]}))[1][:, 0].tolist() == [-1, 0]


def test_they_come_back_from_json() -> None:
    table = people()
    columns, _ = Columns.learn(table)
    again = Columns.from_spec(json.loads(json.dumps(columns.spec())))
    assert again.spec() == columns.spec()
    for one, two in zip(columns.encode(table)[:2], again.encode(table)[:2], strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0, equal_nan=True)


def test_tables_that_do_not_fit_are_refused() -> None:
    columns, _ = Columns.learn(people())
    with pytest.raises(ValueError, match=r"no column 'height', .*which the encoder was trained on; it has 'a'"):
        columns.encode(pa.table({"a": [1]}))
    wrong = people().set_column(0, "height", pa.array(["tall"] * 60))
    with pytest.raises(ValueError, match="'height' was a number in training and is text here, such as 'tall'"):
        columns.encode(wrong)
    with pytest.raises(ValueError, match="no column of 'planet' can be learned from"):
        Columns.learn(people().select(["planet"]))


def test_infinite_numbers_are_missing() -> None:
    columns, _ = Columns.learn(pa.table({"x": [1.0, 2.0, math.inf, math.nan, 3.0]}))
    assert columns.numbers[0].gaps
    assert columns.numbers[0].mean == 2


def test_running_numbers_are_seen_though_only_some_rows_are_learned_from() -> None:
    table = pa.table({"id": list(range(40)), "x": [float(i % 7) for i in range(40)]})
    columns, notes = Columns.learn(table, rows=list(range(0, 40, 3)))
    assert columns.names == ["x"]
    assert columns.numbers[0].mean == pytest.approx(sum(i % 7 for i in range(0, 40, 3)) / 14)
    assert "'id' numbers the rows" in notes[0]
