"""Rows of a CSV or Parquet table, as numbers and categories in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.data import csv
from nearfar.data.labels import array_labels, table_labels
from nearfar.data.samples import Samples
from nearfar.errors import NotFound, UserError
from nearfar.modalities.table.columns import Columns

RESERVED = ("split", "group")
"""Columns that say something of a row and are no input."""

ENDINGS = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet", ".pq")


@dataclass(slots=True, eq=False, kw_only=True)
class TableSamples(Samples):
    """N rows. names: the position of each, from 0, as text.  digest: see `Columns.digests`.

    columns: what they mean.  numbers: N x A, standardized, NaN where missing.  codes: N x B, int64: see
    `Columns.encode`.
    """

    PER_SAMPLE = ("numbers", "codes")
    FINITE = True  # NaN is a gap

    columns: Columns
    numbers: Tensor
    codes: Tensor

    def fetch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """What views take: numbers and codes of some rows."""
        index = index.to(self.numbers.device)
        return self.numbers[index], self.codes[index]

    def to(self, device: torch.device | str) -> Self:
        return replace(self, numbers=self.numbers.to(device), codes=self.codes.to(device))

    def describe(self, i: int) -> list[str]:
        """What each column of a row says, in the order of the columns; "" where nothing is known."""
        numbers = [
            "" if value != value else f"{round(value * column.std + column.mean, column.digits) + 0.0:.10g}"
            for value, column in zip(self.numbers[i].tolist(), self.columns.numbers, strict=True)
        ]
        texts = [
            column.values[code] if column.values and 0 <= code < len(column.values) else ""
            for code, column in zip(self.codes[i].tolist(), self.columns.categories, strict=True)
        ]
        return numbers + texts


def open_table(
    data: str | Path | pa.Table | Mapping[str, Any],
    *,
    labels: str | Path | Sequence | np.ndarray | Tensor | None = None,
    label_column: str = "label",
    drop: Sequence[str] = (),
    categorical: Sequence[str] = (),
    columns: Columns | None = None,
) -> TableSamples:
    """Open a table for training, or for an encoder that was trained on `columns`.

    data: a .csv, .tsv (both may be .gz) or .parquet file, a pyarrow table, a pandas data frame, or a mapping of column
        names to values. Text is read as `nearfar.data.csv` says. The columns split and group are no inputs.
    labels: a table of index and label (see `table_labels`), an array, or None for the column `label_column`, if there
        is one; that column is no input in any case.  drop: columns to leave out.
    categorical: columns of whole numbers that are codes.
    Columns are learned from the rows whose split is train, or unknown.

    Raises FileNotFoundError where there is nothing, ValueError where it is no table, a named column is absent, or
    no column can be learned from.
    """
    table = _read(data)
    given = f"'{data}'" if isinstance(data, str | Path) else "the table"
    if absent := [name for name in (*drop, *categorical) if name not in table.column_names]:
        raise UserError(f"{given} has no column {absent[0]!r}; it has {', '.join(map(repr, table.column_names))}")
    names = list(map(str, range(len(table))))
    missing = torch.full((len(table),), MISSING)
    if isinstance(labels, str | Path):
        known = table_labels(labels, names, column=label_column, noun="row")
    elif labels is not None:
        known = array_labels(labels, len(table), noun="row")
    elif label_column in table.column_names:
        known = array_labels(table[label_column].to_pylist(), len(table), noun="row")
    else:
        known = None
    split, group = [""] * len(table), missing if known is None else known.group
    if "split" in table.column_names:
        split = [csv.known(csv.as_text(value)) for value in table["split"].to_pylist()]
    elif known is not None and known.split:
        split = known.split
    if "group" in table.column_names:
        group = array_labels(table["group"].to_pylist(), len(table)).label
    notes = [] if known is None else list(known.notes)
    if columns is None:
        inputs = [name for name in table.column_names if name not in (*RESERVED, label_column, *drop)]
        learn = [i for i, part in enumerate(split) if part in ("", "train")] or range(len(table))
        columns, more = Columns.learn(table.select(inputs), tuple(categorical), learn)
        notes += more
    elif known is not None and label_column in columns.names:
        notes.append(f"The labels {label_column!r} are among the inputs of the encoder: it is told what it shall tell.")
    numbers, codes = columns.encode(table)
    return TableSamples(
        names=names,
        label=missing if known is None else known.label,
        classes=[] if known is None else known.classes,
        group=group,
        attribute=missing if known is None else known.attribute,
        split=split,
        notes=notes,
        columns=columns,
        numbers=numbers,
        codes=codes,
        digest=columns.digests(table),
    )


def _read(data: Any) -> pa.Table:
    if isinstance(data, pa.Table):
        table = data
    elif isinstance(data, Mapping):
        table = pa.table({name: pa.array(values) for name, values in data.items()})
    elif hasattr(data, "iloc"):
        table = pa.Table.from_pandas(data, preserve_index=False)
    else:
        table = _read_file(Path(data))
    if table.num_rows == 0:
        raise UserError(f"'{data}' has no rows" if isinstance(data, str | Path) else "the table has no rows")
    return table


def _read_file(path: Path) -> pa.Table:
    if not path.is_file():
        raise NotFound(f"There is no table at '{path}'.")
    name = path.name.lower()
    if not name.endswith(ENDINGS):
        raise UserError(f"'{path}' is no table that is known here. Wanted: {', '.join(ENDINGS)}.")
    if not name.endswith((".parquet", ".pq")):
        return csv.read_table(path)
    try:
        return pq.read_table(path)
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError) as error:
        raise UserError(f"'{path}' cannot be read as a Parquet table ({error}).") from error
