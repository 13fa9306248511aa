from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_run import table as fake_table

from nearfar.report.record import Record
from nearfar.report.results import Card, Column, Row, cards, class_tables, results, table

NONE = {"value": None, "low": None, "high": None}


def row(name: str, **values: tuple[float | None, ...]) -> dict[str, Any]:
    return {
        "name": name,
        "values": {c: dict(zip(("value", "low", "high"), (*v, None, None), strict=False)) for c, v in values.items()},
    }


def test_a_table_has_a_cell_for_each_row_and_column() -> None:
    rows = [row("raw", a=(10.25, 9.0, 11.0)), row("ours", a=(12.0,), b=(0.5,)), row("empty")]
    made = table(["a", "b"], rows, rows[1])
    assert made.columns == [Column("a", 1, True), Column("b", 3, False)]
    assert made.rows == [
        Row("raw", [{"value": 10.25, "low": 9.0, "high": 11.0}, NONE]),
        Row("ours", [{"value": 12.0, "low": None, "high": None}, {"value": 0.5, "low": None, "high": None}], main=True),
        Row("empty", [NONE, NONE]),
    ]


def test_dots_and_bars_stand_where_their_numbers_are_on_the_scale() -> None:
    rows = [row("raw", a=(10.0, 0.0, 20.0)), row("ours", a=(75.0, 50.0, 100.0)), row("empty", b=(1.0,))]
    (panel,) = table(["a", "b"], rows, rows[1]).panels  # b has one number: nothing to compare
    assert (panel.column.name, panel.low, panel.high) == ("a", -6.0, 106.0)
    assert [(line.name, line.main) for line in panel.lines] == [("raw", False), ("ours", True)]
    for line, (value, low, high) in zip(panel.lines, [(10, 0, 20), (75, 50, 100)], strict=True):
        assert line.at == pytest.approx(100 * (value + 6) / 112, abs=0.01)
        assert line.bar == pytest.approx((100 * (low + 6) / 112, 100 * (high + 6) / 112), abs=0.01)
    assert table(["a"], rows[:1]).panels == []


def test_cards_are_the_numbers_of_this_runs_encoder() -> None:
    record = Record(Path(), tables={"demo": fake_table()})
    made = cards(record)
    assert made[0] == Card("kNN accuracy (%)", {"value": 80.7, "low": 80.7 - 2.4, "high": 80.7 + 2.3}, 1)
    assert [card.cell["value"] for card in made] == [80.7, 76.3, 0.641]
    assert len(cards(record, most=2)) == 2
    (result,) = results(record)
    assert [made.main for made in result.table.rows] == [False, False, True]
    assert ("k", "20") in result.protocol


def test_the_weakest_class_comes_first() -> None:
    ((title, made),) = class_tables(Record(Path(), tables={"demo": fake_table()}))
    assert title == "Does it help?"
    accuracy = [one.cells[1]["value"] for one in made.rows]
    assert accuracy == sorted(one["values"]["kNN accuracy (%)"]["value"] for one in fake_table()["per_class"]["rows"])
    assert class_tables(Record(Path())) == []
