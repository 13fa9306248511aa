"""Tables of measured numbers: as a table, as dots with bars, and as cards of the main numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nearfar.data.tiles import contained
from nearfar.report.numbers import Cell, decimals, protocol
from nearfar.report.record import Record
from nearfar.report.suite import Suite, suite_of

ENDS = ("value", "low", "high")
NOTHING: Cell = {"value": None, "low": None, "high": None}


@dataclass(frozen=True)
class Column:
    """places: decimals of all its numbers.  ranged: whether any of them has an interval."""

    name: str
    places: int
    ranged: bool


@dataclass(frozen=True)
class Row:
    """cells: one for each column.  main: whether the row stands out."""

    name: str
    cells: list[Cell]
    main: bool = False


@dataclass(frozen=True)
class Line:
    """A row of a panel. at, bar: where its value and the ends of its interval are, in percent from left to right."""

    name: str
    main: bool
    at: float
    bar: tuple[float, float] | None


@dataclass(frozen=True)
class Panel:
    """A column drawn as dots. low, high: the ends of its scale."""

    column: Column
    lines: list[Line]
    low: float
    high: float


@dataclass(frozen=True)
class ResultsTable:
    columns: list[Column]
    rows: list[Row]

    @property
    def panels(self) -> list[Panel]:
        """A panel for each column in which rows differ; none for a single row."""
        drawn = [_panel(column, [(row, row.cells[i]) for row in self.rows]) for i, column in enumerate(self.columns)]
        return [panel for panel in drawn if panel] if len(self.rows) > 1 else []


@dataclass(frozen=True)
class Results:
    """A part of the page. same_protocol: whether its rows were measured alike.  picture: a data URI, or None.
    suite: the parts of a whole evaluation."""

    title: str
    table: ResultsTable
    note: str = ""
    protocol: Sequence[tuple[str, str]] = ()
    same_protocol: bool = True
    picture: str | None = None
    suite: Suite | None = None


@dataclass(frozen=True)
class Card:
    """One main number."""

    title: str
    cell: Cell
    places: int


def table(
    columns: Sequence[str], rows: Sequence[Mapping[str, Any]], main: Mapping[str, Any] | None = None
) -> ResultsTable:
    """Columns and rows as in results/NAME.json (see `nearfar.report.record`). main: one of `rows`, which stands out."""
    cells = {name: [row["values"].get(name, NOTHING) for row in rows] for name in columns}
    heads = [
        Column(
            name,
            decimals([cell.get(end) for cell in cells[name] for end in ENDS], name),
            any(cell.get("low") is not None for cell in cells[name]),
        )
        for name in columns
    ]
    body = [Row(row["name"], [cells[name][i] for name in columns], row is main) for i, row in enumerate(rows)]
    return ResultsTable(heads, body)


def results(record: Record) -> list[Results]:
    """A part for each table of results/."""
    return [
        Results(
            made["title"],
            table(made["columns"], made["rows"], record.main_row(made)),
            str(made.get("note") or ""),
            protocol(made),
            picture=contained(made.get("picture")),
            suite=suite_of(made),
        )
        for made in (*record.tables.values(), *record.bare.values())
    ]


def cards(record: Record, most: int = 8) -> list[Card]:
    """The main numbers of this run's encoder; with the name of the data, where it was measured on several."""
    several = sum("data" in one for one in record.tables.values()) > 1
    measured = [
        (
            f"{name}, {one['data']}" if several and "data" in one else name,
            record.main_row(one)["values"].get(name, NOTHING),
        )
        for one in record.tables.values()
        for name in one["columns"]
    ]
    return [Card(name, cell, decimals(cell.values(), name)) for name, cell in measured if cell["value"] is not None][
        :most
    ]


def class_tables(record: Record) -> list[tuple[str, ResultsTable]]:
    """Title and table of each result that has numbers of single classes, the class with the lowest number first."""
    made = []
    for one in record.tables.values():
        if classes := one.get("per_class"):
            last = classes["columns"][-1]
            rows = sorted(classes["rows"], key=lambda row: row["values"].get(last, NOTHING)["value"] or 0.0)
            made.append((one["title"], table(classes["columns"], rows)))
    return made


def _panel(column: Column, rows: Sequence[tuple[Row, Cell]]) -> Panel | None:
    ends = [v for _, cell in rows for end in ENDS if (v := cell.get(end)) is not None]
    bottom, top = (min(ends), max(ends)) if ends else (0.0, 0.0)
    if bottom == top:
        return None
    low, high = bottom - 0.06 * (top - bottom), top + 0.06 * (top - bottom)

    def at(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    lines = []
    for row, cell in rows:
        value, left, right = (cell.get(end) for end in ENDS)
        if value is not None:
            bar = None if left is None or right is None else (at(left), at(right))
            lines.append(Line(row.name, row.main, at(value), bar))
    return Panel(column, lines, low, high)
