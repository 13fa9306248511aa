"""What is known of each sample: its class, its group, its split; from folder names, a table, or an array.

Labels are names. A user's "-1" is a class like any other; only an empty cell, NaN, or a word that stands for it (see
`nearfar.data.csv`) means that nothing is known. Numbers that are equal are one class: 1, 1.0, "1" and 1e0. Names that
differ otherwise are classes of their own; those that may be meant to be one (01 and 1, Cat and cat, True and 1) are
named in a note. In messages the samples are called by a noun that the caller gives.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.data import csv
from nearfar.errors import NotFound, UserError, counted, printable

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "development"), "val"),
}
"""Words that are read as a split, whatever their case: in a column split, and as the name of a top folder."""

UNLABELED = ("unlabeled", "unlabelled", "unsup")
"""Names of a folder beside class folders (or beside train and test) of which no sample has a label."""


USUAL = "label"
"""The column of labels that is read where none is named."""


@dataclass(frozen=True, slots=True)
class LabelColumn:
    """Which column holds the labels. asked: whether somebody named it, be it the usual one; then it must be there."""

    name: str = USUAL
    asked: bool = False

    @classmethod
    def of(cls, given: str | LabelColumn, otherwise: str = "") -> LabelColumn:
        """As a user gives it: "" is nothing that was asked for, and means the usual column, or another one."""
        return given if isinstance(given, LabelColumn) else cls(given or otherwise or USUAL, bool(given))

    def find(self, there: Sequence[str], where: str) -> str | None:
        """The column of that name among those that are there, whatever its case; None where there is none.

        where: the columns are, for the message.  Raises ValueError, which lists them, where it was asked for and is
        absent.
        """
        found = csv.column(there, self.name)
        if found is None and self.asked:
            has = f"it has {', '.join(map(repr, there))}: name one by --label-column" if there else "it has no columns"
            remedy = "" if there else ": give the table that has it as --labels FILE, or leave --label-column out"
            raise UserError(f"{where} has no column {self.name!r}; {has}{remedy}")
        return found


Rows: TypeAlias = list[tuple[str, dict[str, str]]]
"""Of a table: where each stands, and its cells by column."""


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

    def beside(self, group: Tensor, attribute: Tensor, split: list[str]) -> Labels:
        """These, with what other labels of the same samples say of group, attribute and split, where these say nothing
        of any sample: a file of labels need not repeat what the data know."""
        return replace(
            self,
            group=self.group if (self.group != MISSING).any() else group,
            attribute=self.attribute if (self.attribute != MISSING).any() else attribute,
            split=self.split if any(self.split) else split,
        )


def natural(text: str) -> tuple:
    """A sort key that puts a2 before a10, folder by folder, whatever the case."""
    parts = [re.split(r"([0-9]+)", part) for part in text.split("/")]
    # Pieces alternate between text and digits, so that a number only ever meets a number.
    return [[int(p) if i % 2 else p.casefold() for i, p in enumerate(part)] for part in parts], text


def number(values: Iterable[str], notes: list[str] | None = None) -> tuple[Tensor, list[str]]:
    """Each name's number in natural order (MISSING for ""), and the names: N, int64, and a list.

    Names that are equal as numbers are one class, called by the shortest.  notes: where what was merged is told, and
    which names are alike but apart.
    """
    values = list(values)
    spelled: dict[Any, set[str]] = {}
    for name in set(values) - {""}:
        spelled.setdefault(csv.value(name), set()).add(name)
    called = {key: csv.short(min(names, key=lambda name: (len(name), name))) for key, names in spelled.items()}
    classes = sorted(called.values(), key=natural)
    place = {name: i for i, name in enumerate(classes)}
    numbers = {name: place[called[key]] for key, names in spelled.items() for name in names} | {"": MISSING}
    if notes is not None:
        if merged := [sorted(names, key=natural) for names in spelled.values() if len(names) > 1]:
            same = some([" and ".join(map(repr, names)) for names in sorted(merged)])
            notes.append(f"Written in several ways, but equal as numbers, and so one class each: {same}.")
        if pairs := alike(classes, classes):
            notes.append(f"Classes that differ only in how they are written are kept apart: {some(pairs)}.")
    return torch.tensor([numbers[v] for v in values], dtype=torch.int64), classes


def form(name: str) -> str:
    """What is left of a name without case, white space, forms of Unicode and zeros in front; true is 1, false 0."""
    text = re.sub(r"[\s\u00ad\u200b-\u200f\u2060\ufeff]+", "", unicodedata.normalize("NFKC", name).casefold())
    text = {"true": "1", "false": "0"}.get(text, text)
    number = re.fullmatch(r"(-?)\+?0*([0-9]+)(?:\.0*)?", text)
    return number[1] + number[2] if number else text


def alike(names: Sequence[str], others: Sequence[str]) -> list[str]:
    """Pairs of names that are not the same class but differ only in form, as text for a message."""
    forms: dict[str, list[str]] = {}
    for name in names:
        forms.setdefault(form(name), []).append(name)
    pairs: dict[frozenset[str], str] = {}
    for other in others:
        for name in forms.get(form(other), []):
            if csv.value(name) != csv.value(other):
                pairs.setdefault(frozenset((name, other)), f"{_spelled(name, other)} and {_spelled(other, name)}")
    return list(pairs.values())


def _spelled(name: str, other: str) -> str:
    """A name in quotes, so that it can be told from the other."""
    looks_same = unicodedata.normalize("NFKC", name) == unicodedata.normalize("NFKC", other)
    return ascii(name) if looks_same else repr(name)


def places(known: Sequence[str], given: Sequence[str]) -> tuple[list[int], list[str]]:
    """Where the classes of another source stand in [*known, *others], and these others, in their order."""
    place = {csv.value(name): i for i, name in enumerate(known)}
    others = [name for name in given if csv.value(name) not in place]
    place |= {csv.value(name): len(known) + i for i, name in enumerate(others)}
    return [place[csv.value(name)] for name in given], others


def meet(known: Sequence[str], given: Sequence[str], *, ours: str, theirs: str) -> list[str]:
    """What is to be said where classes of two sources meet: which of the given ones are none of the known.

    known, given: names of classes that have samples.  ours, theirs: whose they are, as in "the training rows".
    Raises ValueError where both have classes and none in common.
    """
    _, others = places(known, given)
    pairs = some(alike(known, others))
    if known and others and len(others) == len(given):
        raise UserError(
            f"no class is common to {ours} ({some(list(map(repr, known)))}) and {theirs} "
            f"({some(list(map(repr, given)))}). "
            + (f"They differ in how they are written: {pairs}. " if pairs else "")
            + "Name the same class alike in both."
        )
    if not known or not others:
        return []
    notes = [f"{len(others)} of {len(given)} classes of {theirs} are none of {ours}: {some(list(map(repr, others)))}."]
    return notes + ([f"They may differ only in how they are written: {pairs}."] if pairs else [])


def present(label: Tensor, classes: Sequence[str]) -> list[str]:
    """The classes that have a sample, in order. label: N, int64, or MISSING."""
    return [classes[int(c)] for c in label.unique().tolist() if c != MISSING]


def split_names(
    values: Iterable[Any], *, where: str = "the column split", remedy: str = "or call the column something else"
) -> list[str]:
    """What a column says of the split of each sample: train, test, val, or "" where it is empty.

    where: it stands, for the message.  Raises ValueError for any other word, or a number.
    """
    words = [csv.known(csv.as_text(value)) for value in values]
    if strange := sorted({word for word in words if word and word.casefold() not in SPLITS}, key=natural):
        raise UserError(
            f"{where} holds {some(list(map(repr, strange)))}; understood are {', '.join(SPLITS)}, in any case, and "
            f"empty cells, which are learned from. Write one of these, {remedy}."
        )
    return [SPLITS.get(word.casefold(), "") for word in words]


def given_labels(
    labels: Any,
    names: Sequence[str],
    *,
    column: str | LabelColumn = "",
    root: Path | None = None,
    files: Sequence[str] = (),
    noun: str = "sample",
    keep: Collection[str] = (),
) -> Labels:
    """Labels as a user gives them: the word folders, the path of a table (see `table_labels`), or an array."""
    column = LabelColumn.of(column)
    if not isinstance(labels, str | Path):
        return array_labels(labels, len(names), noun=noun, keep=keep)
    if str(labels) != "folders":
        return table_labels(labels, names, column=column.name, root=root, files=files, noun=noun, keep=keep)
    column.find((), "--labels folders")
    if not any("/" in name for name in names):
        raise UserError(
            f"--labels folders takes each {noun}'s class from its folder, and the {noun}s of DATA lie in none. Give a "
            f"table, with --labels labels.csv, of columns {'index' if names[0] == '0' else 'path'} and label."
        )
    return folder_labels(names, noun=noun)


def no_labels(names: Sequence[str], *, noun: str = "sample") -> Labels:
    """No labels; the split of each path's top folder; a hint where folder names look like classes."""
    split, classes = zip(*map(_folders(names), names), strict=True)
    several = sorted((c for c, n in Counter(classes).items() if c and n > 1), key=natural)
    notes = []
    if len(several) > 1:
        notes.append(
            f"The {noun}s lie in {len(several)} folders ({some(several)}): "
            "if these are classes, --labels folders uses them as labels."
        )
    unknown = torch.full((len(names),), MISSING)
    return Labels(unknown, [], unknown.clone(), list(split), notes)


def folder_labels(names: Sequence[str], *, noun: str = "sample") -> Labels:
    """The class of a sample is its folder's path below DATA, without a top folder train, test or val.

    So train/cat/1.jpg and test/cat/2.jpg are both "cat", and cat/2019/1.jpg is "cat/2019". A file that lies directly
    in DATA (or in train/), or below a folder named unlabeled, unlabelled or unsup there, has no label. The split
    folders count only where every file lies in one, or in such a folder beside them.
    Raises ValueError where no file lies in a folder.
    """
    split, values = zip(*map(_folders(names), names), strict=True)
    notes: list[str] = []
    label, classes = number(values, notes)
    if not classes:
        raise UserError(
            f"--labels folders takes each {noun}'s class from its folder, but {some(names)} lie in no class folder. "
            "Put each class in a folder of its own, or give a table: --labels labels.csv with columns path and label."
        )
    unknown = torch.full((len(names),), MISSING)
    labels = Labels(label, classes, unknown, list(split), notes)
    extra = Counter(folder for folder in map(_unlabeled, names) if folder)
    loose = values.count("") - extra.total()
    if loose:
        labels.notes.append(f"{_count(loose, noun)} in no class folder: no label.")
    labels.notes += [f"{_count(n, noun)} in the folder {folder!r}: no label." for folder, n in sorted(extra.items())]
    _note_one_class(labels)
    return labels


def table_labels(
    path: str | Path,
    names: Sequence[str],
    *,
    column: str = "label",
    root: Path | None = None,
    files: Sequence[str] = (),
    noun: str = "sample",
    keep: Collection[str] = (),
) -> Labels:
    """The labels of a CSV or Parquet table that has a row for each sample.

    Columns: path (relative to DATA) or, for arrays and tables, index (from 0); label (or `column`); optional split,
    group and attribute. Others are ignored. A row may leave any of them empty, and samples may have no row.

    path: the table.  names: of the N samples.  root: DATA's folder, to understand absolute paths.
    files: of the N samples, where some are pages of one; a row of a file is for all its pages.
    keep: words that are labels, though they usually say that nothing is known.
    Raises FileNotFoundError where there is no such table, ValueError where a column is missing, an index is out of
    range, rows contradict each other, or no row names a sample of DATA. Rows that name none are counted in notes.
    """
    path = insist_table(path, root=root)
    notes: list[str] = []
    _, key, rows = read_label_rows(path, column, notes)
    positions: dict[str, list[int]] = {}
    for i, known_as in enumerate(zip(names, files or names, strict=True)):
        for name in dict.fromkeys(known_as):
            positions.setdefault(plain_path(name, root), []).append(i)
    of_row = [positions.get(plain_path(csv.short(row[key]), root), []) for _, row in rows]
    stray = [f"{where}: {row[key]!r}" for (where, row), which in zip(rows, of_row, strict=True) if not which]
    _insist_named(path, key, rows, stray, names, noun)

    wanted = dict.fromkeys((column, "split", "group", "attribute"))
    kept = {name: _values(path, name, rows, of_row, names) for name in wanted}
    label, classes = number((csv.known(cell, keep) for cell in kept[column]), notes)
    group, attribute = (number(map(csv.known, kept[name]))[0] for name in ("group", "attribute"))
    split = split_names(kept["split"], where=f"'{path}': the column split")
    if not any(split):
        split = [cut[0] for cut in map(_folders(names), names)]
    labels = Labels(label, classes, group, split, notes, attribute)
    if stray:
        labels.notes.append(
            f"{len(stray)} of {len(rows)} rows of '{path}' name no {noun} of DATA and were ignored ({some(stray)})."
        )
    bare = int((label == MISSING).sum())
    if bare:
        have = "has" if bare == 1 else "have"
        labels.notes.append(f"{bare} of {len(names)} {noun}s {have} no label in '{path}'.")
    _note_missing(labels, kept[column], keep)
    _note_one_class(labels)
    return labels


def array_labels(
    values: Any, n: int, *, names: Sequence[str] | None = None, noun: str = "sample", keep: Collection[str] = ()
) -> Labels:
    """Labels given as an array: N numbers or strings; "", None, NaN and their like mean that nothing is known.

    names: where given, the values are numbers into it and its order is kept; else each distinct value is a class.
    keep: words that are labels, though they usually say that nothing is known.
    Raises ValueError where there are not N values, or a number has no name.
    """
    values = values.cpu() if isinstance(values, Tensor) else values
    if np.ma.isMaskedArray(values):
        values = np.ma.filled(values.astype(object), None)
    values = _array(values)
    if values.size != n or values.shape[:1] != (n,):
        raise UserError(f"{n} {noun}s want {n} labels; the labels have the shape {tuple(values.shape)}.")
    if np.issubdtype(values.dtype, np.floating):  # 0.1 in single precision is 0.1 and not 0.10000000149
        values = np.where(np.isnan(values), None, values.astype(str))
    given = [csv.as_text(v) for v in values.reshape(n).tolist()]
    texts = [csv.known(text, keep) for text in given]
    notes: list[str] = []
    if names is None:
        label, classes = number(texts, notes)
    else:
        numbers = {csv.value(str(i)): i for i in range(len(names))} | {"": MISSING}
        nameless = sorted({text for text in texts if csv.value(text) not in numbers}, key=natural)
        if nameless:
            raise UserError(f"The labels hold {some(nameless)}, but there are {len(names)} class names, from 0.")
        label, classes = torch.tensor([numbers[csv.value(t)] for t in texts]), [str(name) for name in names]
        if len({csv.value(name) for name in classes}) < len(classes):
            raise UserError(f"Two of the {len(classes)} class names are the same: {some(classes)}.")
    labels = Labels(label, classes, torch.full((n,), MISSING), [""] * n, notes)
    _note_missing(labels, given, keep)
    if 0 < (empty := given.count("")) < n:
        labels.notes.append(f"{empty:,} of {n:,} labels are empty.")
    _note_one_class(labels)
    return labels


def _array(values: Any) -> np.ndarray:
    """As an array; a list keeps the types of its values, which NumPy would make text or numbers of one form."""
    if isinstance(values, np.ndarray):
        return values
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise UserError(f"the labels are no list of one value each ({error})") from error
    if array.ndim == 1 and isinstance(values, list | tuple):
        array = np.empty(len(values), object)
        array[:] = [_plain_value(value) for value in values]
    return array


def _plain_value(value: Any) -> Any:
    if isinstance(value, np.floating) and value.itemsize < 8:
        return str(value)  # 0.1 and no longer
    return value.item() if isinstance(value, np.generic | Tensor) else value


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


def insist_table(path: str | Path, column: str | None = None, *, root: Path | None = None) -> Path:
    """The path of a table of labels. column: that it must have, beside path or index, as its first line says.

    root: DATA's folder, for the message.  Raises FileNotFoundError where there is none, ValueError without the columns.
    """
    path = Path(path)
    if not path.is_file():
        beside = f" There is one in DATA: --labels '{root / path}'." if root and (root / path).is_file() else ""
        raise NotFound(f"--labels wants 'folders' or a .csv or .parquet file; there is no '{path}'.{beside}")
    if column is not None and (names := csv.header(path)):
        _columns(path, names, column)
    return path


def _columns(path: Path, names: Sequence[str], column: str) -> tuple[str, dict[str, str | None]]:
    """Which column names the samples; and how each that is asked for is called, or None where there is none."""
    there = {name: csv.column(names, name) for name in (column, "path", "index", "split", "group", "attribute")}
    key = next((name for name in ("path", "index") if there[name]), None)
    lacking = [name for name, found in (("path (or index)", key), (column, there[column])) if not found]
    if key is None or lacking:
        raise UserError(
            f"'{path}' has the columns {', '.join(map(repr, names)) or 'none'} but no "
            f"{' and no '.join(lacking)}. Rename them, or choose the label's column with --label-column; if the first "
            "line is data, put a line of names above it."
        )
    return key, there


def read_label_rows(path: Path, column: str, notes: list[str]) -> tuple[list[str], str, Rows]:
    """The columns, which of them names the samples, and the rows; these also by the names that are asked for, whatever
    their case in the table.

    Raises ValueError where a column is missing.
    """
    if path.suffix.lower() in (".parquet", ".pq"):
        header, rows = _read_parquet(path)
    else:
        header, records = csv.read_records(path)
        rows = [(f"line {line}", cells) for line, cells in records]
    key, there = _columns(path, header.cells, column)
    csv.insist_distinct(path, header, among=list(filter(None, there.values())))
    if not rows:
        raise UserError(f"'{path}' has a header but no rows.")
    other = {name: found for name, found in there.items() if found not in (None, name)}
    for name, found in other.items():
        notes.append(f"The column {found!r} of '{path}' is read as {name!r}.")
    rows = [(where, cells | {name: cells[found] for name, found in other.items()}) for where, cells in rows]
    return header.cells, key, rows


def _read_parquet(path: Path) -> tuple[csv.Row, Rows]:
    import pyarrow as pa  # takes a while to import
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise UserError(f"'{path}' cannot be read as a Parquet table ({error}).") from error
    names = table.column_names
    cells = zip(*(map(csv.as_text, csv.arrow_values(column)) for column in table.columns), strict=True)
    return csv.Row(1, names), [(f"row {i}", dict(zip(names, row, strict=True))) for i, row in enumerate(cells)]


def _insist_named(path: Path, key: str, rows: Rows, stray: list[str], names: Sequence[str], noun: str) -> None:
    """Raise ValueError where no row names a sample, or an index is out of range."""
    by_index = names[0] == "0"
    if by_index != (key == "index") and len(stray) == len(rows):
        have, other = ("no paths", "index, from 0") if by_index else ("paths", "path, relative to DATA")
        raise UserError(f"'{path}' names {noun}s by {key}, but those of DATA have {have}: give a column {other}.")
    if key == "index" and stray:
        raise UserError(f"'{path}' has an index that is none of 0 to {len(names) - 1}: {some(stray)}.")
    if len(stray) == len(rows):
        alike = {PurePath(cells[key]).name for _, cells in rows} & {PurePath(name).name for name in names}
        why = "The file names agree but their folders do not: " if alike else ""
        raise UserError(
            f"No row of '{path}' names any of the {noun}s of DATA. {why}the table says {rows[0][1][key]!r}, DATA holds "
            f"{names[0]!r}. Write each path as it is below DATA."
        )


def _values(path: Path, column: str, rows: Rows, of_row: list[list[int]], names: Sequence[str]) -> list[str]:
    """What a column says of each sample, "" where nothing. Raises ValueError where two rows differ about one."""
    values, source = [""] * len(names), [""] * len(names)
    for (where, cells), which in zip(rows, of_row, strict=True):
        value = cells.get(column, "")
        for i in which:
            if source[i] and csv.known(value) != csv.known(values[i]):
                raise UserError(
                    f"'{path}' gives {names[i]!r} two values of {column!r}: {values[i]!r} in {source[i]} and "
                    f"{value!r} in {where}. Keep one."
                )
            values[i], source[i] = value, where
    return values


def plain_path(name: str, root: Path | None) -> str:
    """A path as it is compared: forward slashes, no leading ./, relative to DATA, one Unicode form."""
    name = name.replace("\\", "/").removeprefix("./")
    if root is not None and name.startswith("/"):
        name = name.removeprefix(root.absolute().as_posix() + "/")
    return unicodedata.normalize("NFC", name)


def _note_missing(labels: Labels, cells: Sequence[str], keep: Collection[str]) -> None:
    words = Counter(cell for cell in cells if cell and not csv.known(cell, keep))
    if words:
        labels.notes.append(
            f"{counted(words.total(), 'labels')} {'says' if words.total() == 1 else 'say'} "
            f"{' or '.join(sorted(words))}, which is read as no label; "
            f"--keep-words {' '.join(sorted(words))} keeps them as classes."
        )


def _note_one_class(labels: Labels) -> None:
    if len(labels.classes) == 1:
        labels.notes.append(f"All labels are {labels.classes[0]!r}: one class cannot be told from another.")
    elif not labels.classes:
        labels.notes.append("All labels are empty.")


def _count(n: int, noun: str) -> str:
    return f"1 {noun} is" if n == 1 else f"{n} {noun}s are"


def some(items: Sequence[Any], most: int = 3) -> str:
    """The first few, for a message."""
    return ", ".join(printable(str(item)) for item in items[:most]) + (", ..." if len(items) > most else "")
