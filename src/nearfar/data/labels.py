"""What is known of each image: its class, its group, its split; from folder names, a table, or an array.

Labels are names. A user's "-1" is a class like any other; only an empty cell (or NaN) means that nothing is known.
"""

from __future__ import annotations

import csv
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nearfar.batch import MISSING

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
}
"""Names of a top folder that are read as a split, whatever their case."""

UNLABELED = ("unlabeled", "unlabeled", "unsup")
"""Names of a folder beside class folders (or beside train and test) whose images have no label."""


@dataclass(slots=True)
class Labels:
    """What is known of N samples.

    label, group, attribute: N, int64, or MISSING.  classes: the name of each class number.
    split: N names, "" where unknown.  notes: sentences for the user.
    """

    label: Tensor
    classes: list[str]
    group: Tensor
    split: list[str]
    notes: list[str] = field(default_factory=list)
    attribute: Tensor = None  # pyright: ignore[reportAssignmentType] (where none is given, it is MISSING for all)

    def __post_init__(self) -> None:
        if self.attribute is None:
            self.attribute = torch.full_like(self.label, MISSING)


def natural(text: str) -> tuple:
    """A sort key that puts a2 before a10, folder by folder, whatever the case."""
    parts = [re.split(r"([0-9]+)", part) for part in text.split("/")]
    # Pieces alternate between text and digits, so that a number only ever meets a number.
    return [[int(p) if i % 2 else p.casefold() for i, p in enumerate(part)] for part in parts], text


def number(values: Iterable[str], classes: list[str] | None = None) -> tuple[Tensor, list[str]]:
    """Each name's number in natural order (MISSING for ""), and the names: N, int64, and a list."""
    values = list(values)
    classes = sorted(set(values) - {""}, key=natural) if classes is None else classes
    numbers = {name: i for i, name in enumerate(classes)} | {"": MISSING}
    return torch.tensor([numbers[v] for v in values], dtype=torch.int64), classes


def no_labels(names: Sequence[str]) -> Labels:
    """No labels; the split of each path's top folder; a hint where folder names look like classes."""
    split, classes = zip(*map(_folders(names), names), strict=True)
    several = sorted((c for c, n in Counter(classes).items() if c and n > 1), key=natural)
    notes = []
    if len(several) > 1:
        notes.append(
            f"The images lie in {len(several)} folders ({some(several)}): "
            "if these are classes, --labels folders uses them as labels."
        )
    unknown = torch.full((len(names),), MISSING)
    return Labels(unknown, [], unknown.clone(), list(split), notes)


def folder_labels(names: Sequence[str]) -> Labels:
    """The class of an image is its folder's path below DATA, without a top folder train, test or val.

    So train/cat/1.jpg and test/cat/2.jpg are both "cat", and cat/2019/1.jpg is "cat/2019". An image that lies directly
    in DATA (or in train/), or below a folder named unlabeled, unlabeled or unsup there, has no label. The split
    folders count only where every image lies in one, or in such a folder beside them.
    Raises ValueError where no image lies in a folder.
    """
    split, values = zip(*map(_folders(names), names), strict=True)
    label, classes = number(values)
    if not classes:
        raise ValueError(
            f"--labels folders takes each image's class from its folder, but {some(names)} lie in no class folder. "
            "Put each class in a folder of its own, or give a table: --labels labels.csv with columns path and label."
        )
    unknown = torch.full((len(names),), MISSING)
    labels = Labels(label, classes, unknown, list(split))
    extra = Counter(found for name in names if (found := _unlabeled(name)))
    loose = values.count("") - extra.total()
    if loose:
        labels.notes.append(f"{_images(loose)} in no class folder: no label.")
    labels.notes += [f"{_images(n)} in the folder {folder!r}: no label." for folder, n in sorted(extra.items())]
    _note_one_class(labels)
    return labels


def table_labels(
    path: str | Path,
    names: Sequence[str],
    *,
    column: str = "label",
    root: Path | None = None,
    files: Sequence[str] = (),
) -> Labels:
    """The labels of a CSV or Parquet table with a row an image.

    Columns: path (relative to DATA) or, for images from an array, index (from 0); label (or `column`); optional
    split, group and attribute. Others are ignored. A row may leave any of them empty, and images may have no row.

    path: the table.  names: of the N images.  root: DATA's folder, to understand absolute paths.
    files: of the N images, where some are pages of one; a row of a file is for all its pages.
    Raises FileNotFoundError where there is no such table, ValueError where a column is missing, an index is out of
    range, rows contradict each other, or no row names an image of DATA. Rows that name none are counted in notes.
    """
    path = Path(path)
    if not path.is_file():
        beside = f" There is one in DATA: --labels '{root / path}'." if root and (root / path).is_file() else ""
        raise FileNotFoundError(f"--labels wants 'folders' or a .csv or .parquet file; there is no '{path}'.{beside}")
    rows, columns = _read(path)
    key = next((name for name in ("path", "index") if name in columns), None)
    lacking = [name for name, there in (("path (or index)", key), (column, column in columns)) if not there]
    if key is None or lacking:
        raise ValueError(
            f"'{path}' has the columns {', '.join(map(repr, columns)) or 'none'} but no {' and no '.join(lacking)}. "
            "Rename them, or choose the label's column with --label-column."
        )
    by_name: dict[str, list[int]] = {}
    for i, known_as in enumerate(zip(names, files or names, strict=True)):
        for name in dict.fromkeys(known_as):
            by_name.setdefault(_plain(name, root), []).append(i)
    if key == "index":
        _check_index(path, rows, len(names), by_name)
    if not rows:
        raise ValueError(f"'{path}' has a header but no rows; one row an image is wanted.")

    kept: dict[str, list[str]] = {name: [""] * len(names) for name in (column, "split", "group", "attribute")}
    first: dict[tuple[str, int], str] = {}
    stray = []
    for where, row in rows:
        found = by_name.get(_plain(row[key], root), [])
        if not found:
            stray.append(f"{where}: {row[key]!r}")
        for i, (name, values) in product(found, kept.items()):
            value = row.get(name, "")
            if (name, i) in first and value != values[i]:
                raise ValueError(
                    f"'{path}' gives {names[i]!r} two values of {name!r}: {values[i]!r} in {first[name, i]} and "
                    f"{value!r} in {where}. Keep one."
                )
            first[name, i] = where
            values[i] = value

    if len(stray) == len(rows):
        alike = {PurePath(r[key]).name for _, r in rows} & {PurePath(n).name for n in names}
        why = "The file names agree but their folders do not: " if alike else ""
        raise ValueError(
            f"No row of '{path}' names an image of DATA. {why}the table says {rows[0][1][key]!r}, DATA holds "
            f"{names[0]!r}. Write each path as it is below DATA."
        )
    label, classes = number(kept[column])
    split = kept["split"] if any(kept["split"]) else [cut[0] for cut in map(_folders(names), names)]
    labels = Labels(label, classes, number(kept["group"])[0], split, attribute=number(kept["attribute"])[0])
    if stray:
        labels.notes.append(
            f"{len(stray)} of {len(rows)} rows of '{path}' name no image of DATA and were ignored ({some(stray)})."
        )
    bare = kept[column].count("")
    if bare:
        labels.notes.append(f"{_images(bare)} of {len(names)} without a label in '{path}'.")
    _note_one_class(labels)
    return labels


def array_labels(values: Any, n: int, *, names: Sequence[str] | None = None) -> Labels:
    """Labels given as an array: N integers or strings; "", None and NaN mean that nothing is known.

    names: where given, the values are numbers into it and its order is kept; else each distinct value is a class.
    Raises ValueError where there are not N values, or a number has no name.
    """
    values = np.asarray(values.cpu() if isinstance(values, Tensor) else values)
    if values.size != n or values.shape[:1] != (n,):
        raise ValueError(f"{n} images want {n} labels; the labels have the shape {tuple(values.shape)}.")
    texts = [_text(v) for v in values.reshape(n).tolist()]
    if names is None:
        label, classes = number(texts)
    else:
        numbers = {str(i): str(name) for i, name in enumerate(names)} | {"": ""}
        nameless = sorted(set(texts) - numbers.keys(), key=natural)
        if nameless:
            raise ValueError(f"The labels hold {some(nameless)}, but there are {len(names)} class names, from 0.")
        label, classes = number([numbers[t] for t in texts], [str(name) for name in names])
    labels = Labels(label, classes, torch.full((n,), MISSING), [""] * n)
    _note_one_class(labels)
    return labels


def _folders(names: Sequence[str]):
    """How to cut a path into (split, class); split folders count where every image lies in one, or has no label."""
    tops = {name.split("/", 1)[0].lower() if "/" in name else "" for name in names} - set(UNLABELED)
    has_splits = bool(tops) and tops <= SPLITS.keys()

    def cut(name: str) -> tuple[str, str]:
        folders = name.split("/")[:-1]
        split = SPLITS.get(folders[0].lower(), "") if has_splits else ""
        return split, "" if _unlabeled(name) else "/".join(folders[1:] if split else folders)

    return cut


def _unlabeled(name: str) -> str | None:
    """The folder, in DATA or in a split of it, that says that what is below it has no label."""
    folders = name.split("/")[:-1]
    depth = 1 if folders and folders[0].lower() in SPLITS else 0
    for end in {1, 1 + depth}:
        if folders[end - 1 : end] and folders[end - 1].lower() in UNLABELED:
            return "/".join(folders[:end])
    return None


def _read(path: Path) -> tuple[list[tuple[str, dict[str, str]]], list[str]]:
    """Rows as (where it stands, {column: text}), and the columns."""
    try:
        return _read_parquet(path) if path.suffix.lower() in (".parquet", ".pq") else _read_csv(path)
    except (ValueError, OSError, csv.Error) as error:  # Arrow's errors are of these kinds, and so is bad UTF-8
        raise ValueError(
            f"'{path}' cannot be read as a table ({error}); wanted: a UTF-8 .csv or a .parquet file."
        ) from error


def _read_parquet(path: Path) -> tuple[list[tuple[str, dict[str, str]]], list[str]]:
    import pyarrow.parquet  # takes a while to import

    table = pyarrow.parquet.read_table(path)
    rows = [(f"row {i}", {k: _text(v) for k, v in row.items()}) for i, row in enumerate(table.to_pylist())]
    return rows, table.column_names


def _read_csv(path: Path) -> tuple[list[tuple[str, dict[str, str]]], list[str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        delimiter = max(",;\t", key=file.readline().count)
        file.seek(0)
        reader = csv.DictReader(file, delimiter=delimiter, skipinitialspace=True)
        reader.fieldnames = columns = [name.strip() for name in reader.fieldnames or []]
        # A short row has None for its last cells; a long one keeps the rest under None.
        rows = [
            (f"line {reader.line_num}", {k: (v or "").strip() for k, v in row.items() if k is not None})
            for row in reader
        ]
    return rows, columns


def _check_index(path: Path, rows: list[tuple[str, dict[str, str]]], n: int, by_name: dict[str, list[int]]) -> None:
    if "0" not in by_name:
        raise ValueError(
            f"'{path}' names images by index, which is for arrays. The images of DATA are named by path: give a "
            "column path, relative to DATA."
        )
    wrong = [f"{where}: {row['index']!r}" for where, row in rows if row["index"] not in by_name]
    if wrong:
        raise ValueError(f"'{path}' has an index that is none of 0 to {n - 1}: {some(wrong)}.")


def _plain(name: str, root: Path | None) -> str:
    """A path as it is compared: forward slashes, no leading ./, relative to DATA, one Unicode form."""
    name = name.replace("\\", "/").removeprefix("./")
    if root is not None and name.startswith("/"):
        name = name.removeprefix(root.absolute().as_posix() + "/")
    return unicodedata.normalize("NFC", name)


def _text(value: Any) -> str:
    """A cell as text: 3.0 is "3" (tables turn integers with gaps into floats), None and NaN are ""."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _note_one_class(labels: Labels) -> None:
    if len(labels.classes) == 1:
        labels.notes.append(f"All labels are {labels.classes[0]!r}: one class cannot be told from another.")
    elif not labels.classes:
        labels.notes.append("All labels are empty.")


def _images(n: int) -> str:
    return "1 image is" if n == 1 else f"{n} images are"


def some(items: Sequence[Any], most: int = 3) -> str:
    """The first few, for a message."""
    return ", ".join(map(str, items[:most])) + (", ..." if len(items) > most else "")
