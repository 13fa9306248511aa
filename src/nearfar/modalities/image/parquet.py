"""A Parquet table of encoded images, or of the paths of images."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nearfar.data import csv
from nearfar.data.labels import LabelColumn, some
from nearfar.errors import UserError
from nearfar.modalities.image.held import COLUMNS

IMAGES = ("image", "images", "img", "picture", "jpeg", "jpg", "png", "bytes")
"""Columns of a table that may hold encoded images, as bytes or, as the datasets library does, as bytes and path."""

PATHS = ("path", "file", "file_name", "filename", "image", "img")
"""Columns that may hold paths, relative to the table."""


@dataclass(slots=True)
class ImageTable:
    """A Parquet table of images.

    data, offsets: as `nearfar.data.archives.EndToEnd` has them; or paths, relative to the table.
    columns: label, group, attribute and split as far as there are any. classes: names of numbered labels."""

    names: list[str]
    data: np.ndarray | None
    offsets: np.ndarray | None
    paths: list[str]
    columns: dict[str, list[Any]]
    classes: list[str] | None


def read_table(path: Path, label: LabelColumn) -> ImageTable:
    """Read a table; raises ValueError where no column holds images, or some rows have none."""
    try:
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"'{path}' cannot be read as a Parquet table ({error}).") from error
    csv.insist_distinct(path, csv.Row(1, schema.names))
    encoded = next((name for name in IMAGES if name in schema.names and _bytes(schema.field(name).type)), None)
    texts = [n for n in PATHS if n in schema.names and pa.types.is_string(schema.field(n).type)]
    if encoded is None and not texts:
        raise UserError(
            f"'{path}' has the columns {some(schema.names)}; wanted: one of {', '.join(IMAGES)} with encoded "
            f"images, or one of {', '.join(PATHS)} with paths."
        )
    known = {label.name: label.find(schema.names, f"'{path}'")}
    known |= {name: csv.column(schema.names, name) for name in COLUMNS}
    there = {name: found for name, found in known.items() if found}
    wanted = [n for n in (encoded, *texts[:1], *there.values()) if n is not None]
    table = file.read(columns=list(dict.fromkeys(wanted)))
    rows = table.num_rows
    columns = {name: csv.arrow_values(table[found]) for name, found in there.items()}
    classes = _class_names(schema, there.get(label.name, label.name))
    paths = [str(p or "") for p in table[texts[0]].to_pylist()] if texts else []
    if encoded is None:
        if gaps := [i for i, p in enumerate(paths) if not p]:
            raise UserError(f"'{path}': {len(gaps)} rows have no path, the first of them row {gaps[0]}.")
        return ImageTable(paths, None, None, paths, columns, classes)
    column: Any = table[encoded].combine_chunks()
    if pa.types.is_struct(column.type):
        inner = column.field("path").to_pylist() if "path" in {f.name for f in column.type} else []
        paths = paths or [str(p or "") for p in inner]
        column = column.field("bytes")
    if column.null_count:
        raise UserError(f"'{path}': {column.null_count} of {rows} rows of {encoded!r} have no bytes. Leave them out.")
    column = column.cast(pa.large_binary())
    _, offsets, data = column.buffers()
    start = np.frombuffer(offsets, np.int64)[column.offset : column.offset + rows + 1]
    unique = len(set(paths)) == rows and all(paths)
    names = paths if unique else list(map(str, range(rows)))
    return ImageTable(names, np.frombuffer(data or b"", np.uint8), start, [], columns, classes)


def table_cells(path: Path) -> tuple[list[str], dict[str, list[str]]]:
    """The names of the images of a table, and its other columns of numbers and text, as text."""
    names = read_table(path, LabelColumn()).names
    schema = pq.read_schema(path)
    plain = [
        f.name
        for f in schema
        if not pa.types.is_nested(f.type) and not _bytes(f.type) and f.name not in (*PATHS, "path", "index")
    ]
    table = pq.read_table(path, columns=plain)
    return names, {name: list(map(csv.as_text, csv.arrow_values(table[name]))) for name in plain}


def _bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _bytes(field.type) for field in kind)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _class_names(schema: pa.Schema, label: str) -> list[str] | None:
    """The names of numbered classes, where the datasets library has noted them."""
    try:
        noted = json.loads((schema.metadata or {})[b"huggingface"])
        return [str(name) for name in noted["info"]["features"][label]["names"]]
    except (KeyError, TypeError, ValueError):
        return None
