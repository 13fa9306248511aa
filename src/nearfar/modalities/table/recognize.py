"""Whether a file is a table to learn from. Free of torch."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path


def looks_like_table(path: Path) -> bool:
    """Whether a file holds rows to learn from, and not a list of images or images themselves."""
    if path.name.endswith((".tsv", ".csv.gz", ".tsv.gz")):
        return True
    if path.suffix == ".csv" and path.is_file():
        with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
            rows = [[cell.strip() for cell in row] for row in itertools.islice(csv.reader(file), 2) if row]
        listed = any("path" in row or (path.parent / row[0]).is_file() for row in rows)
        return not listed and any(len(row) > 1 for row in rows)
    if path.suffix in (".parquet", ".pq") and path.is_file():
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            schema = pq.read_schema(path)
        except (pa.ArrowException, OSError):
            return False  # whoever opens it will say what is wrong with it
        held = any(pa.types.is_struct(kind) or pa.types.is_binary(kind) for kind in schema.types)
        return not held and not {"path", "image_path", "file", "file_name", "filename"} & set(schema.names)
    return False
