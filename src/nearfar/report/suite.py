"""The whole evaluation of a run, as its part of the page shows it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nearfar.report.numbers import Cell, protocol

PLACES = 6
"""Decimals that a number may ask for, at most."""


@dataclass(frozen=True)
class Measured:
    """A number of every encoder.

    cells: one for each encoder.  gains: what the last encoder gains over each of the others.
    better: which way is better; "" where neither is.
    """

    title: str
    better: str
    places: int
    cells: list[Cell]
    gains: list[Cell]


@dataclass(frozen=True)
class Measures:
    """One part of the evaluation."""

    title: str
    source: str
    rows: list[Measured]
    protocol: list[tuple[str, str]]
    notes: list[str]

    @property
    def gained(self) -> bool:
        """Whether any number was compared sample by sample."""
        return any(cell.get("value") is not None for row in self.rows for cell in row.gains)


@dataclass(frozen=True)
class Suite:
    """All parts.  left_out: what each of the others is about, and why it was not measured."""

    encoders: list[str]
    parts: list[Measures]
    left_out: list[tuple[str, str]]


def suite_of(table: Mapping[str, Any]) -> Suite | None:
    """What a result of `nearfar.suite` holds besides its table; None for any other.

    Raises KeyError, TypeError or ValueError where it does not have the form that it was written in.
    """
    made = table.get("suite")
    if made is None:
        return None
    encoders = [str(name) for name in made["encoders"]]
    parts = [
        Measures(
            title=str(part["title"]),
            source=str(part["source"]),
            rows=[_measured(row, encoders) for row in part["rows"]],
            protocol=protocol(part),
            notes=[str(note) for note in part["notes"]],
        )
        for part in made["parts"]
    ]
    return Suite(encoders, parts, [(str(one["title"]), str(one["why"])) for one in made["left_out"]])


def _measured(row: Mapping[str, Any], encoders: Sequence[str]) -> Measured:
    return Measured(
        title=str(row["title"]),
        better=str(row["better"]),
        places=min(PLACES, max(0, int(row["places"]))),
        cells=[_cell(row["cells"].get(name)) for name in encoders],
        gains=[_cell(row["gains"].get(name)) for name in encoders[:-1]],
    )


def _cell(cell: Mapping[str, Any] | None) -> Cell:
    cell = cell or {}
    return {key: _finite(cell.get(key)) for key in ("value", "low", "high")}


def _finite(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
