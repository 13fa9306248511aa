"""Rows of a CSV or Parquet table, as numbers and categories in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.data import csv
from nearfar.data.labels import LabelColumn, Labels, array_labels, given_labels, split_names
from nearfar.data.samples import LEARNED, Samples
from nearfar.data.tables import read
from nearfar.errors import UserError
from nearfar.modalities.table.columns import Columns, NumberForm
from nearfar.modalities.table.values import missing_words

RESERVED = ("split", "group")
"""Columns that say something of a row and are no input."""


@dataclass(slots=True, eq=False, kw_only=True)
class TableSamples(Samples):
    """N rows. names: the position of each, from 0, as text.  digest: see `Columns.digests`.

    columns: what they mean.  numbers: N x A, scaled, NaN where missing.  codes: N x B, int64: see
    `Columns.encode`.
    """

    PER_SAMPLE = ("numbers", "codes")
    FINITE = True  # NaN is a gap

    columns: Columns
    numbers: Tensor
    codes: Tensor
    order: tuple[str, ...] = ()

    def fetch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """What views take: numbers and codes of some rows."""
        index = index.to(self.numbers.device)
        return self.numbers[index], self.codes[index]

    def to(self, device: torch.device | str) -> Self:
        return replace(self, numbers=self.numbers.to(device), codes=self.codes.to(device))

    def describe(self, i: int) -> list[str]:
        """What each column of a row says, in the order of the columns; "" where nothing is known."""
        both = zip(self.numbers[i].tolist(), self.columns.numbers, strict=True)
        numbers = [column.shown(value) for value, column in both]
        texts = [
            column.values[code] if column.values and 0 <= code < len(column.values) else ""
            for code, column in zip(self.codes[i].tolist(), self.columns.categories, strict=True)
        ]
        return numbers + texts


def open_table(
    data: Any,
    *,
    labels: str | Path | Sequence | np.ndarray | Tensor | None = None,
    label_column: str | LabelColumn = "",
    drop: Sequence[str] = (),
    categorical: Sequence[str] = (),
    keep: Sequence[str] = (),
    every: bool = False,
    form: NumberForm = "standard",
    columns: Columns | None = None,
) -> TableSamples:
    """Open a table for training, or for an encoder that was trained on `columns`.

    data: a .csv, .tsv, .jsonl (all may be .gz) or .parquet file, a pyarrow table, a data frame of pandas or polars, a
        datasets.Dataset, or a mapping of column names to values. Text is read as `nearfar.data.csv` says. The columns
        split and group are no inputs. Columns are found by name, whatever its case.
    labels: a table of index and label (see `table_labels`), an array, or None for the column `label_column`, which must
        be there, or by default label, if there is one; that column is no input in any case. What a table of labels
        says of split and group goes before what the columns of the data say.  drop: columns to leave out.
    categorical: columns whose numbers are codes.  keep: words that are values, though they usually say that one is
        missing.
    Columns are learned from the rows whose split is train, or unknown.  every: from all rows.
    form: how numbers become inputs, see `nearfar.modalities.table.columns`.

    Raises FileNotFoundError where there is nothing, ValueError where it is no table, a named column is absent, no row
    may be learned from, or no column can be.
    """
    table, typed = read(data)
    given = f"'{data}'" if isinstance(data, str | Path) else "the table"
    notes: list[str] = []

    def find(name: str) -> str | None:
        found = csv.column(table.column_names, name)
        if found is not None and found != name:
            notes.append(f"The column {found!r} is read as {name!r}.")
        return found

    def named(names: Sequence[str]) -> list[str]:
        found = [csv.column(table.column_names, name) for name in names]
        if None in found:
            raise UserError(
                f"{given} has no column {names[found.index(None)]!r}; it has {', '.join(map(repr, table.column_names))}"
            )
        return list(filter(None, found))

    dropped = drop if columns is None else [name for name in drop if csv.column(table.column_names, name) is not None]
    out, codes_in = named(dropped), named(categorical)
    names = list(map(str, range(len(table))))
    wanted = LabelColumn.of(label_column)
    if labels is None:
        wanted.find(table.column_names, given)
    label_in = find(wanted.name)
    missing = torch.full((len(table),), MISSING)
    known = Labels(missing, [], missing, [""] * len(table))
    if labels is not None:
        known = given_labels(labels, names, column=wanted, noun="row", keep=keep)
    elif label_in is not None:
        known = array_labels(csv.arrow_values(table[label_in]), len(table), noun="row", keep=keep)
    split, group = known.split, missing
    split_in, group_in = (None if name in out else find(name) for name in RESERVED)
    if split_in is not None:
        where = f"the column split of {given}"
        remedy = "or leave the column out by --drop split"
        split = split_names(csv.arrow_values(table[split_in]), where=where, remedy=remedy)
    if group_in is not None:
        group = array_labels(csv.arrow_values(table[group_in]), len(table), noun="row").label
    known = known.beside(group, missing, split)
    split = known.split
    notes += known.notes
    inputs = [name for name in table.column_names if name not in (split_in, group_in, label_in, *out)]
    if columns is None:
        learn = [i for i, part in enumerate(split) if every or part in LEARNED]
        if not learn:
            raise UserError(
                f"no row of {given} may be learned from: all are of the split {' or '.join(sorted(set(split)))}. Leave "
                "the column out by --drop split, or learn from all rows by --split all"
            )
        columns, more = Columns.learn(table.select(inputs), codes_in, learn, keep=keep, typed=typed, form=form)
        notes += more
    else:
        table = table.rename_columns([_as_trained(name, columns, notes, table) for name in table.column_names])
        inputs = [name for name in columns.names if name in table.column_names]
        if (labels is not None or label_in is not None) and wanted.name in columns.names:
            notes.append(
                f"The labels {wanted.name!r} are among the inputs of the encoder: it is told what it shall tell."
            )
    count, words, where = missing_words(table.select(inputs), keep)
    if count:
        notes.append(
            f"{count:,} cells of {', '.join(map(repr, where))} are {' or '.join(words)}, which is read as missing; "
            f"--keep-words {' '.join(words)} keeps them as categories."
        )
    numbers, codes, more = columns.encode(table)
    notes += [note for note in more if note not in notes]
    return TableSamples(
        names=names,
        label=known.label,
        classes=known.classes,
        group=known.group,
        attribute=known.attribute,
        split=split,
        notes=notes,
        label_column="" if labels is None and label_in is None else wanted.name,
        columns=columns,
        numbers=numbers,
        codes=codes,
        order=tuple(inputs),
        digest=columns.digests(table),
    )


def _as_trained(name: str, columns: Columns, notes: list[str], table: pa.Table) -> str:
    """The name by which the encoder knows a column."""
    known = None if name in columns.names else csv.column(columns.names, name)
    if known is None or csv.column(table.column_names, known) != name:
        return name
    notes.append(f"The column {name!r} is read as {known!r}.")
    return known
