"""What a table looks like from outside. Free of torch, as the command line asks before anything is loaded."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from nearfar.data import csv

LISTS = frozenset(("path", "image_path", "file", "file_name", "filename"))
"""Columns of a Parquet file that name files elsewhere."""


def looks_like_table(path: Path) -> bool:
    """Whether a file holds rows to learn from, and not a list of files or the contents of files.

    A .tsv or a packed file always does. A .csv does if it has several columns, or one of numbers, none called path, and
    does not begin with the name of a file beside it; a .parquet file if it holds neither bytes nor paths.
    """
    name = path.name.lower()
    if name.endswith((".tsv", ".csv.gz", ".tsv.gz")):
        return True
    if name.endswith(".csv") and path.is_file():
        rows = [row.cells for row in csv.first_rows(path, 2)]
        listed = any(csv.column(cells, "path") or (path.parent / cells[0]).is_file() for cells in rows)
        return not listed and any(len(cells) > 1 or isinstance(csv.value(cells[0]), Decimal) for cells in rows)
    if name.endswith((".parquet", ".pq")) and path.is_file():
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            schema = pq.read_schema(path)
        except (pa.ArrowException, OSError):
            return False  # whoever opens it will say what is wrong with it
        held = any(pa.types.is_struct(kind) or pa.types.is_binary(kind) for kind in schema.types)
        return not held and not LISTS & set(schema.names)
    return False
