"""Whether data are images, from the outside: without opening them, and without torch."""

from __future__ import annotations

import csv
import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SUFFIXES = (".txt", ".tar", ".npz", ".npy")
"""Endings of files that hold images or list them; of .csv and .parquet the contents decide."""

PATHS = ("path", "image_path", "file", "file_name", "filename")
"""Columns of a Parquet table that name files."""


def recognizes(data: Any) -> bool:
    """Whether `nearfar.modalities.image.samples.open_images` is meant to open this."""
    if isinstance(data, tuple) and len(data) == 2:
        return recognizes(data[0])
    if isinstance(data, str | os.PathLike):
        return _path(Path(data))
    if isinstance(data, list):
        return not (data and isinstance(data[0], Mapping | list | tuple | int | float))
    features = getattr(data, "features", None)
    if isinstance(features, Mapping):  # a datasets.Dataset
        return any(type(feature).__name__ == "Image" for feature in features.values())
    if hasattr(data, "columns") or isinstance(data, Mapping):
        return False
    return hasattr(data, "__getitem__") and hasattr(data, "__len__")


def _path(path: Path) -> bool:
    suffix = path.suffix.lower()
    if path.is_dir() or suffix in SUFFIXES:
        return True
    if suffix == ".csv" and path.is_file():
        with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
            rows = [[cell.strip() for cell in row] for row in itertools.islice(csv.reader(file), 2) if row]
        listed = any("path" in row or (path.parent / row[0]).is_file() for row in rows)
        return listed or not any(len(row) > 1 for row in rows)
    if suffix in (".parquet", ".pq") and path.is_file():
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            schema = pq.read_schema(path)
        except (pa.ArrowException, OSError):
            return True  # opening it says what is wrong
        encoded = any(pa.types.is_struct(kind) or pa.types.is_binary(kind) for kind in schema.types)
        return encoded or bool({*PATHS} & set(schema.names))
    return False
