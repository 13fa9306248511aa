"""The data sets of a study on many: a folder of them, or a list."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from nearfar.data import csv
from nearfar.data.labels import natural, some
from nearfar.errors import NotFound, UserError, counted

ENDINGS = (
    *(".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".pq", ".jsonl", ".jsonl.gz", ".txt", ".txt.gz"),
    *(".npz", ".npy", ".tar"),
)
"""Of a file that holds many samples. Files of a folder with other endings are told, and are no data sets."""
LISTS = (".csv", ".yaml", ".yml")
TABLES = (".csv", ".parquet")


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A data set with labels.

    name: in tables, and of no other one.  data: a path.  labels: a file, the word folders, or "" where the data bring
    them.  label_column: "" where none is named.  masks, boxes: of its images, for dense measures; "" without.
    """

    name: str
    data: str
    labels: str = ""
    label_column: str = ""
    masks: str = ""
    boxes: str = ""


COLUMNS = tuple(field.name for field in fields(DataSet))


def data_sets(to: str, say: Callable[[str], None] = lambda text: None) -> list[DataSet]:
    """The data sets of a folder, or of a list, in the order in which they stand there.

    say: told which files of a folder are none.
    Raises NotFound where a path leads to nothing, UserError for a list that cannot be read, for two data sets of one
    name, and where there is none.
    """
    path = Path(to)
    if not path.exists():
        raise NotFound(f"there is nothing at {to!r}: --to wants a folder of data sets, or a .csv or .yaml list of them")
    if path.is_dir():
        found = _in_folder(path, say)
    elif path.suffix.lower() in LISTS:
        found = _in_list(path)
    else:
        raise UserError(
            f"--to {to!r} is no folder of data sets and no list of them, a .csv or .yaml file: name it in one"
        )
    if not found:
        raise UserError(f"--to {to!r} holds no data set")
    names = [one.name for one in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        both = [one.data for one in found if one.name == twice]
        raise UserError(
            f"two data sets are called {twice!r}: {both[0]!r} and {both[1]!r}. Give one another name, in the column "
            "name of a list"
        )
    for one in found:
        for what in ("data", "labels", "masks", "boxes"):
            value = getattr(one, what)
            if value and not (what == "labels" and value in ("folders", "none")) and not Path(value).exists():
                raise NotFound(f"there is nothing at {value!r}, the {what} of the data set {one.name!r} in {to!r}")
    return found


def _in_folder(folder: Path, say: Callable[[str], None]) -> list[DataSet]:
    found, others = [], []
    for path in sorted(folder.iterdir(), key=lambda path: natural(path.name)):
        name, ending = path.name.lower(), next((e for e in ENDINGS[::-1] if path.name.lower().endswith(e)), "")
        if name.startswith(".") or any(name.endswith(f".labels{table}") for table in TABLES):
            continue
        if path.is_dir():
            found.append(_with_labels(DataSet(name=path.name, data=str(path))))
        elif ending:
            found.append(_with_labels(DataSet(name=path.name[: -len(ending)], data=str(path))))
        else:
            others.append(repr(path.name))
    if others:
        told = f"{counted(len(others), 'files')} in {str(folder)!r} without the ending of a data set: {some(others)}"
        if not found:
            raise UserError(f"{told}. --to wants a folder of data sets: each a folder, or a file such as .npz or .tar")
        say(f"Left out: {told}.")
    return found


def _in_list(path: Path) -> list[DataSet]:
    if path.suffix.lower() == ".csv":
        header, rows = csv.read_records(path)
        _insist_columns(header.cells, path)
        return [_entry(row, f"{str(path)!r}, line {line}", path.parent) for line, row in rows]
    import yaml

    try:
        listed = yaml.safe_load(csv.read_text(path))
    except yaml.YAMLError as error:
        raise UserError(f"{str(path)!r} is no YAML: {' '.join(str(error).split())}") from error
    if isinstance(listed, Mapping):  # of a path, or of a mapping, by name
        named = {str(name): value if isinstance(value, Mapping) else {"data": value} for name, value in listed.items()}
        listed = [{"name": name, **value} for name, value in named.items()]
    if not isinstance(listed, list) or not all(isinstance(row, Mapping) for row in listed):
        raise UserError(
            f"{str(path)!r} holds no list of data sets: wanted an entry with data, and maybe name, for each"
        )
    for row in listed:
        _insist_columns([str(key) for key in row], path)
    return [_entry(row, f"{str(path)!r}, entry {i + 1}", path.parent) for i, row in enumerate(listed)]


def _insist_columns(names: list[str], path: Path) -> None:
    if unknown := [name for name in names if name not in COLUMNS]:
        raise UserError(f"{str(path)!r} has {unknown[0]!r}; a list of data sets has {', '.join(COLUMNS)}")
    if "data" not in names:
        raise UserError(f"{str(path)!r} names no data; a list of data sets has {', '.join(COLUMNS)}")


def _entry(row: Mapping[str, Any], where: str, root: Path) -> DataSet:
    cells = {name: "" if row.get(name) is None else str(row[name]).strip() for name in COLUMNS}
    if not cells["data"]:
        raise UserError(f"{where} names no data")
    for what in ("data", "labels", "masks", "boxes"):
        if cells[what] and not (what == "labels" and cells[what] in ("folders", "none")):
            cells[what] = str(root / cells[what])
    cells["name"] = cells["name"] or _stem(Path(cells["data"]))
    return _with_labels(DataSet(**cells))


def _stem(path: Path) -> str:
    ending = next((e for e in ENDINGS[::-1] if path.name.lower().endswith(e)), "")
    return path.name[: len(path.name) - len(ending)]


def _with_labels(one: DataSet) -> DataSet:
    """With the labels that lie in or beside the data, where none are named."""
    path = Path(one.data)
    if one.labels or not path.exists():
        return one
    beside = path / "labels" if path.is_dir() else path.with_name(f"{_stem(path)}.labels")
    tables = [beside.with_name(beside.name + table) for table in TABLES]
    found = next((str(table) for table in tables if table.is_file()), "")
    if not found and path.is_dir() and any(each.is_dir() and not each.name.startswith(".") for each in path.iterdir()):
        found = "folders"
    return DataSet(**{name: getattr(one, name) for name in COLUMNS} | {"labels": found})
