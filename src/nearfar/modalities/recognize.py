"""What a table, or sentences, look like from outside. Free of torch: the command line asks first."""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from nearfar.data import csv

LISTS = frozenset(("path", "image_path", "file", "file_name", "filename"))
"""Columns of a Parquet file that name files elsewhere."""


VIDEOS = frozenset(
    f".{name}"
    for name in (
        *("mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "ts", "m2ts", "mts", "wmv", "flv", "3gp", "ogv"),
        *("h264", "264", "h265", "hevc", "y4m", "mxf"),
    )
)
"""A file with such a suffix is one of video; if it cannot be read, it is a bad one."""

SENTENCES = ("text", "sentence")
"""Columns that hold sentences to learn from, where none is named."""


def sentence_column(names: Collection[str]) -> str:
    """The column of sentences among those of a table, in any case; "" where none is called so."""
    found = (name for wanted in SENTENCES for name in names if name.strip().casefold() == wanted)
    return next(found, "")


def is_columns(data: Any) -> bool:
    """Whether data are columns: a CSV or Parquet file that lists no images, a frame, a datasets.Dataset without images,
    or a mapping of columns."""
    if isinstance(data, str | os.PathLike):
        return looks_like_table(Path(data))
    if isinstance(getattr(data, "features", None), Mapping):  # a datasets.Dataset
        return not any(type(feature).__name__ == "Image" for feature in data.features.values())
    return hasattr(data, "columns") or isinstance(data, Mapping)


def holds_sentences(data: Any) -> bool:
    """Whether data are sentences: a file that `looks_like_sentences`, a list of texts that are no paths, or columns in
    memory (a mapping, a frame, a datasets.Dataset) of which one is called text or sentence and none holds images."""
    if isinstance(data, str | os.PathLike):
        return looks_like_sentences(Path(data))
    if isinstance(data, list | tuple):
        some = data[:100]
        return bool(some) and all(isinstance(text, str) for text in some) and not all(map(looks_like_path, some))
    features = getattr(data, "features", None)
    if isinstance(features, Mapping) and any(type(kind).__name__ == "Image" for kind in features.values()):
        return False
    columns = features or (data if isinstance(data, Mapping) else getattr(data, "columns", ()))
    return isinstance(columns, Iterable) and bool(sentence_column([str(name) for name in columns]))


def looks_like_path(text: str, folder: Path = Path()) -> bool:
    """Whether a text is the path of a file that is there, or has the form of one: no blank, and an ending."""
    if re.fullmatch(r"(\S+|.*[/\\].*)\.[A-Za-z][A-Za-z0-9]{1,4}", text):
        return True
    return 0 < len(text) < 256 and "\0" not in text and (folder / text).is_file()


def looks_like_sentences(path: Path) -> bool:
    """Whether a file holds sentences: a .jsonl file; a table with a column called text or sentence, and none of paths;
    or lines of text, in a .txt or .txt.gz file whose first line is not the path of a file."""
    name = path.name.lower()
    if name.endswith((".jsonl", ".jsonl.gz", ".txt.gz")):
        return True
    if not path.is_file():
        return False
    if name.endswith(".txt"):
        first = next((line.strip() for line in csv.first_lines(path) if line.strip()), "")
        return bool(first) and not looks_like_path(first, path.parent)
    columns = csv.header(path) if name.endswith(".csv") or looks_like_table(path) else []
    listed = any(name.strip().casefold() in LISTS for name in columns)
    return bool(sentence_column(columns)) and not listed


def lists_files(path: Path) -> bool:
    """Whether a .csv names files: it has a column called path, or begins with the name of a file beside it."""
    rows = [row.cells for row in csv.first_rows(path, 2)]
    return any(csv.column(cells, "path") or (path.parent / cells[0]).is_file() for cells in rows)


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
        several = any(len(cells) > 1 or isinstance(csv.value(cells[0]), Decimal) for cells in rows)
        return several and not lists_files(path)
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


def holds_videos(data: Any) -> bool:
    """Whether data are videos: a file of one, a folder of which a third of the files are of video at least, a list of
    their paths, an array of five dimensions, or a list of arrays of four."""
    if isinstance(data, list):
        first = data[0] if data else None
        if isinstance(first, str | os.PathLike):
            return Path(first).suffix.lower() in VIDEOS
        return getattr(first, "ndim", 0) == 4
    if not isinstance(data, str | os.PathLike):
        return getattr(data, "ndim", 0) == 5
    path, suffix = Path(data), Path(data).suffix.lower()
    if path.is_dir():
        found = [Path(name).suffix.lower() in VIDEOS for name in _names_below(path)]
        return 3 * sum(found) >= len(found) > 0
    if suffix in (".txt", ".csv") and path.is_file():
        return any(Path(cell.strip()).suffix.lower() in VIDEOS for row in csv.first_rows(path, 2) for cell in row.cells)
    if suffix in (".npz", ".npy") and path.is_file():
        return any(len(shape) == 5 for shape in _array_shapes(path))
    return suffix in VIDEOS


def has_folders(data: Any) -> bool:
    """Whether data are a folder with folders in it, each of which may hold the frames of a video."""
    if not isinstance(data, str | os.PathLike) or not Path(data).is_dir():
        return False
    with os.scandir(data) as entries:
        return any(entry.is_dir() and not entry.name.startswith(".") for entry in entries)


def _names_below(root: Path, most: int = 10_000) -> Iterable[str]:
    """Names of files below a folder, so many at most, without following links to folders."""
    count = 0
    for _, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (name for name in names if not name.startswith("."))
        count += len(names)
        if count > most:
            return


def _array_shapes(path: Path) -> list[tuple[int, ...]]:
    """The shapes of the arrays of a NumPy file, by their heads alone; none where it cannot be read."""
    try:
        if path.suffix.lower() == ".npy":
            with path.open("rb") as file:
                heads = [file.read(256)]
        else:
            heads = []
            with zipfile.ZipFile(path) as whole:
                for name in whole.namelist():
                    with whole.open(name) as file:
                        heads.append(file.read(256))
    except (OSError, zipfile.BadZipFile, zlib.error):
        return []
    found = (re.search(rb"'shape': \(([\d, ]*)\)", head) for head in heads)
    return [tuple(map(int, re.findall(rb"\d+", shape[1]))) for shape in found if shape]
