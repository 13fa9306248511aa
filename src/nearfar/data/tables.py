"""Tables as Python, files and frames hold them, read into columns of Arrow: for every kind whose samples are rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.data import csv
from nearfar.data.labels import LabelColumn, Labels, array_labels, given_labels, some, split_names
from nearfar.errors import NotFound, UserError, WrongType

ENDINGS = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet", ".pq", ".jsonl", ".jsonl.gz")


def read(data: Any) -> tuple[pa.Table, bool]:
    """The table, its columns named without white space around them; and whether its columns have types of their own."""
    given = f"'{data}'" if isinstance(data, str | Path) else "the table"
    if isinstance(data, str | Path):
        table = _read_file(Path(data))
    elif isinstance(data, pa.Table):
        table = data
    elif isinstance(data, Mapping):
        table = _assembled(given, list(data), list(data.values()))
    elif hasattr(data, "iloc"):  # by position, as two columns may have one name
        table = _assembled(given, list(data.columns), [data.iloc[:, i] for i in range(data.shape[1])])
    elif isinstance(getattr(data, "features", None), Mapping):  # a datasets.Dataset
        table = data.with_format("arrow")[:]
        for name, feature in data.features.items():
            if classes := getattr(feature, "names", None):
                place = table.column_names.index(name)
                texts = [classes[i] if i is not None and i >= 0 else None for i in table[name].to_pylist()]
                table = table.set_column(place, name, pa.array(texts, pa.string()).dictionary_encode())
    elif hasattr(data, "__arrow_c_stream__"):  # a polars frame
        table = pa.table(data)
    else:
        raise WrongType(
            f"a {type(data).__name__} is no table; wanted: a file ({', '.join(ENDINGS)}), a pyarrow table, a frame of "
            "pandas or polars, a datasets.Dataset, or a mapping of column names to values"
        )
    names = [name.strip() for name in table.column_names]
    csv.insist_distinct(data if isinstance(data, str | Path) else "the table", csv.Row(1, names))
    if table.num_rows == 0:
        raise UserError(f"{given} has no rows")
    typed_files = (".parquet", ".pq", ".jsonl", ".jsonl.gz")
    written = isinstance(data, str | Path) and not str(data).lower().endswith(typed_files)
    table = table.rename_columns(names)
    if written:
        _insist_header(given, table)
    return table, not written


def _insist_header(given: str, table: pa.Table) -> None:
    """Raise ValueError where the name of every column is one of its values: then the first row is data."""
    if table.num_rows > 1 and all(name in set(table[name].to_pylist()) for name in table.column_names):
        raise UserError(
            f"{given}: the first line should name the columns, and holds {some(list(map(repr, table.column_names)))}, "
            "which are values too. If it is data, put a line of names above it."
        )


def _assembled(given: str, names: Sequence[Any], values: Sequence[Any]) -> pa.Table:
    """A table of columns that Python holds; of several types of values in one column, all become text."""
    columns = []
    for column in values:
        column = column.cpu().numpy() if isinstance(column, Tensor) else column
        try:
            columns.append(pa.array(column, from_pandas=True))
        except UnicodeEncodeError as error:
            raise UserError(f"{given} holds half a character, which no file of text can hold ({error})") from error
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
            columns.append(pa.array([csv.as_text(value) or None for value in column], pa.string()))
    if len(set(map(len, columns))) > 1:
        raise UserError(f"{given} has columns of {' and '.join(map(str, sorted(set(map(len, columns)))))} values")
    columns = [c.combine_chunks() if isinstance(c, pa.ChunkedArray) else c for c in columns]
    return pa.Table.from_arrays(columns, names=[str(name) for name in names])


def header(path: Path) -> list[str]:
    """The names of the columns of a file, without reading what they hold; none where it cannot be read.

    Raises FileNotFoundError where there is no file.
    """
    insist_file(path)
    if not path.name.lower().endswith((".jsonl", ".jsonl.gz")):
        return csv.header(path)
    try:
        first = json.loads(next((line for line in csv.first_lines(path) if line.strip()), ""))
    except ValueError:
        return []
    return list(map(str, first)) if isinstance(first, dict) else []


def insist_file(path: Path) -> Path:
    """Raise FileNotFoundError where there is no file."""
    if not path.is_file():
        raise NotFound(f"There is no table at '{path}'.")
    return path


def _read_file(path: Path) -> pa.Table:
    insist_file(path)
    name = path.name.lower()
    if not name.endswith(ENDINGS):
        raise UserError(f"'{path}' is no table that is known here. Wanted: {', '.join(ENDINGS)}.")
    if name.endswith((".jsonl", ".jsonl.gz")):
        return _read_json(path)
    if not name.endswith((".parquet", ".pq")):
        return csv.read_table(path)
    try:
        return pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"'{path}' cannot be read as a Parquet table ({error}).") from error


def _read_json(path: Path) -> pa.Table:
    """A table of a file with an object in each line; a row without a name has nothing in that column."""
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(csv.read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"'{path}', line {number}: not JSON ({error}).") from error
        if not isinstance(row, dict):
            raise UserError(f'\'{path}\', line {number}: each line should hold an object, such as {{"text": "..."}}.')
        rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return _assembled(f"'{path}'", names, [[row.get(name) for row in rows] for name in names])


def known(
    table: pa.Table | None,
    names: list[str],
    given: str,
    labels: Any,
    wanted: LabelColumn,
    keep: Sequence[str],
    *,
    noun: str,
) -> Labels:
    """What is known of each row, by the table itself (its columns split, group and attribute, and that of the labels)
    and by other labels, which go before it.

    given: what the table is called in messages.  labels, wanted, keep, noun: as for `given_labels`.
    """
    missing = torch.full((len(names),), MISSING)
    own = {name: _cells(table, name) for name in ("split", "group", "attribute")}
    if labels is not None:
        made = given_labels(labels, names, column=wanted, noun=noun, keep=keep)
    else:
        found = None if table is None else wanted.find(table.column_names, given)
        values = None if found is None or table is None else csv.arrow_values(table[found])
        made = Labels(missing, [], missing.clone(), [""] * len(names))
        if values is not None:
            made = array_labels(values, len(names), noun=noun, keep=keep)
    group, attribute = (
        missing if cells is None else array_labels(cells, len(names)).label
        for cells in (own["group"], own["attribute"])
    )
    split = made.split
    if own["split"] is not None:
        split = split_names(own["split"], where=f"the column split of {given}")
    return made.beside(group, attribute, split)


def _cells(table: pa.Table | None, name: str) -> list[Any] | None:
    found = None if table is None else csv.column(table.column_names, name)
    return None if found is None or table is None else csv.arrow_values(table[found])
