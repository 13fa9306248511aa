"""Pairs of samples with scores that say how alike they are, as people judged them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nearfar.data import csv, tables
from nearfar.data.labels import split_names
from nearfar.data.samples import Samples
from nearfar.errors import UserError

COLUMNS, SCORE = ("sentence1", "sentence2"), "score"
"""Of pairs that are known without being named, as the STS benchmark calls them."""


@dataclass(frozen=True)
class Asked:
    """Which columns hold pairs and scores. columns: two, or none for `COLUMNS`.  score: "" for `SCORE`.  part: of which
    subset a pair is; "" for none."""

    columns: tuple[str, ...] = ()
    score: str = ""
    part: str = ""

    def __post_init__(self) -> None:
        if len(self.columns) not in (0, 2):
            raise UserError(f"--pair-columns {' '.join(self.columns)}: two columns are wanted, one for each side")

    @property
    def named(self) -> bool:
        """Whether the user named any."""
        return bool(self.columns or self.score or self.part)

    def there(self, columns: Sequence[str]) -> bool:
        """Whether a table of these columns holds pairs with scores."""
        wanted = (*(self.columns or COLUMNS), self.score or SCORE)
        return all(csv.column(columns, name) for name in wanted)


@dataclass(frozen=True, kw_only=True)
class ScoredPairs:
    """N pairs. first, second: their sides.  score: N, float64, the higher the more alike.  part: N, the subset of each,
    "" where there are none.  notes: sentences for the user."""

    first: Samples
    second: Samples
    score: Tensor
    part: list[str]
    notes: list[str] = field(default_factory=list)


def read_scores(data: Any, asked: Asked) -> tuple[list[int], Tensor, list[str], list[str]]:
    """Of a table with scored pairs: which rows count, their scores, their parts, and sentences for the user.

    Rows of the split test count where a column split names one, else all.
    Raises ValueError where a column is absent, or a score is no number.
    """
    table, _ = tables.read(data)

    def column(name: str, flag: str) -> list[Any]:
        found = csv.column(table.column_names, name)
        if found is None:
            has = ", ".join(map(repr, table.column_names))
            raise UserError(f"'{data}' has no column {name!r}; it has {has}: name one by {flag}")
        return csv.arrow_values(table[found])

    given = [csv.as_text(value) for value in column(asked.score or SCORE, "--score-column")]
    if (odd := next((i for i, text in enumerate(given) if isinstance(csv.value(text), str)), None)) is not None:
        raise UserError(f"the score of row {odd} of '{data}' is {given[odd]!r}, and a number is wanted")
    part = [csv.as_text(value) for value in column(asked.part, "--part-column")] if asked.part else [""] * len(given)
    which, notes = list(range(len(given))), []
    if csv.column(table.column_names, "split") is not None:
        split = split_names(column("split", ""), where=f"the column split of '{data}'")
        if "test" in split:
            which = [i for i in which if split[i] == "test"]
            notes.append(f"{len(which):,} of {len(given):,} pairs are of the split test: these are measured.")
    score = torch.tensor([float(given[i]) for i in which], dtype=torch.float64)
    return which, score, [part[i] for i in which], notes
