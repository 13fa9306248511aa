"""Pairs in memory: of each sample, what every side holds of it, as samples of that side's kind."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.data import csv, tables
from nearfar.data.digests import digests
from nearfar.data.folders import files_below
from nearfar.data.labels import LabelColumn, Labels, no_labels, some
from nearfar.data.samples import LEARNED, Samples
from nearfar.errors import Lost, NotFound, UserError, WrongType, counted
from nearfar.files import name_text
from nearfar.modalities import kind as kinds
from nearfar.modalities.pair.settings import ENDINGS, Side
from nearfar.modalities.pair.views import Entries

WANTED = (
    f"a table or an archive of arrays ({', '.join(ENDINGS)}), a folder in which files of one stem belong together, a "
    "frame, a mapping of columns, or a tuple of arrays or lists, one for each side"
)
BETWEEN = "+"
"""What stands between the digests of a sample's parts, of which its own is made."""


@dataclass(slots=True, eq=False, kw_only=True)
class PairSamples(Samples):
    """N samples of several sides.

    names: the row of each, or the stem of its files.  sides: what the sides hold, by their names.
    rows: of each sample, for every side in turn, the positions there of its entries, one or more.
    kinds: of each side.
    """

    PER_SAMPLE = ("rows",)

    sides: dict[str, Samples]
    kinds: dict[str, str]
    rows: list[tuple[tuple[int, ...], ...]]

    def fetch(self, index: Tensor) -> tuple[Entries, ...]:
        """What views take: for each side the inputs of all entries of some samples."""
        some_rows = [self.rows[i] for i in index.tolist()]
        return tuple(self._entries(k, [row[k] for row in some_rows]) for k in range(len(self.sides)))

    def _entries(self, k: int, rows: Sequence[tuple[int, ...]]) -> Entries:
        side = list(self.sides.values())[k]
        try:
            inputs = side.fetch(torch.tensor([i for own in rows for i in own]))
        except Lost as lost:
            of = [sample for sample, own in enumerate(rows) for _ in own]
            raise Lost({of[place]: what for place, what in lost.at.items()}) from lost
        return Entries(inputs, torch.tensor([len(own) for own in rows]))

    def contents(self) -> Iterator[bytes]:
        yield from (part.encode() for part in self.parts())

    def parts(self) -> list[str]:
        """The digests of all that belongs to each sample, one after the other."""
        known = [digests(side) for side in self.sides.values()]
        return [BETWEEN.join(known[k][i] for k, own in enumerate(rows) for i in own) for rows in self.rows]

    def kind(self, side: str) -> kinds.Kind:
        """The kind of a side."""
        return kinds.of(self.kinds[side])

    def first(self, side: str) -> Samples:
        """Of each sample the first entry of a side."""
        k = list(self.sides).index(side)
        return self.sides[side].subset([row[k][0] for row in self.rows])

    def of_entries(self, side: str) -> Tensor:
        """Of each entry of a side a sample that holds it, the first: int64."""
        k, of = list(self.sides).index(side), torch.full((len(self.sides[side]),), MISSING)
        for sample in reversed(range(len(self))):
            of[list(self.rows[sample][k])] = sample
        return of

    def across(self, one: str, other: str) -> tuple[Tensor, Tensor]:
        """Which entries of two sides belong together, as a sample holds both: P x 2, int64; and which are one and the
        same, where the sides hold equal entries: these do not belong to themselves."""
        a, b = list(self.sides).index(one), list(self.sides).index(other)
        known, others = digests(self.sides[one]), digests(self.sides[other])
        together = {(i, j) for row in self.rows for i in row[a] for j in row[b]}
        place: dict[str, list[int]] = {}
        for j, content in enumerate(others):
            place.setdefault(content, []).append(j)
        same = {(i, j) for i, content in enumerate(known) for j in place.get(content, [])}
        if self.kinds[one] != self.kinds[other]:
            same = set()
        pairs = (torch.tensor(sorted(which), dtype=torch.int64).reshape(-1, 2) for which in (together - same, same))
        return next(pairs), next(pairs)

    def insist_finite(self) -> None:
        for side in self.sides.values():
            side.insist_finite()

    def subset(self, index: Tensor | Sequence[int]) -> Self:
        """Some of the samples, and of each side what these hold: whatever is learned of a side is learned of that."""
        return super(PairSamples, self).subset(index).compact()

    def compact(self) -> Self:
        """The same samples, with sides that hold no more than they do. Sides that are one stay one."""
        used: dict[int, set[int]] = {}
        for k, side in enumerate(self.sides.values()):
            used.setdefault(id(side), set()).update(i for rows in self.rows for i in rows[k])
        order = {key: sorted(rows) for key, rows in used.items()}
        place = {key: {row: at for at, row in enumerate(rows)} for key, rows in order.items()}
        sides = self._each(lambda side: side if len(side) == len(order[id(side)]) else side.subset(order[id(side)]))
        of = [place[id(side)] for side in self.sides.values()]
        rows = [tuple(tuple(of[k][i] for i in own) for k, own in enumerate(row)) for row in self.rows]
        return replace(self, sides=sides, rows=rows)

    def to(self, device: torch.device | str) -> Self:
        return replace(self, sides=self._each(lambda side: side.to(device)))

    def _each(self, change: Callable[[Samples], Samples]) -> dict[str, Samples]:
        """The sides, changed, each that stands under several names once."""
        changed = {id(side): change(side) for side in {id(side): side for side in self.sides.values()}.values()}
        return {name: changed[id(side)] for name, side in self.sides.items()}


@dataclass(kw_only=True)
class Rows:
    """What data hold before any side is opened.

    given: what they are called.  names: of each row.  cells: for each side, of each row its entries, which may be none.
    root: the folder that paths are relative to.  known: the columns that say what is known of a row, where there are.
    """

    given: str
    names: list[str]
    cells: list[list[list[Any]]]
    root: Path | None = None
    known: pa.Table | None = None


def open_pairs(
    data: Any,
    sides: Sequence[Side],
    open_side: Callable[[Side, Any], Samples],
    *,
    shared: bool = False,
    labels: Any = None,
    label_column: str | LabelColumn = "",
    keep: Sequence[str] = (),
) -> PairSamples:
    """Open pairs for training, or for an encoder that was trained.

    data: see `WANTED`.  sides: what they hold, and where.  open_side: opens a side's own data, as its kind takes them.
    shared: open all sides as one, by the form of the first, for one network that takes them all.
    labels: a table of index (of a folder: path, the stem) and label, an array, or None for the column `label_column`.
    A cell that is a list holds several entries, and rows whose first side is the same are one sample with the entries
    of all. Samples of which a side has nothing that can be read are left out and counted. Samples that hold the same
    on any side are one group, as they are no negatives of each other.

    Raises FileNotFoundError where there is nothing, ValueError where a column is absent, sides are of unequal length,
    or no pair is whole.
    """
    if isinstance(data, PairSamples):
        return data
    rows = _read(data, sides)
    wanted = LabelColumn.of(label_column)
    known = tables.known(rows.known, rows.names, rows.given, labels, wanted, keep, noun="pair")
    if rows.known is None and labels is None:
        known = known.beside(known.group, known.attribute, no_labels(rows.names).split)
    which = _joined(rows, known, sides[0])
    split = [known.split[own[0]] for own in which]
    entries = [
        [list({_key(cell): cell for row in own for cell in cells[row]}.values()) for own in which]
        for cells in rows.cells
    ]
    notes = list(known.notes)
    opened: dict[str, Samples] = {}
    places: list[list[tuple[int, ...]]] = []  # of each side, of each sample
    if shared:
        whole, found = _side(
            sides[0], [own for side in entries for own in side], split * len(sides), rows.root, open_side
        )
        opened = dict.fromkeys((side.name for side in sides), whole)
        places = [found[k * len(which) : (k + 1) * len(which)] for k in range(len(sides))]
    else:
        for side, own in zip(sides, entries, strict=True):
            opened[side.name], found = _side(side, own, split, rows.root, open_side)
            places.append(found)
    for name, side in opened.items():
        notes += [f"{name}: {note}" for note in side.notes if "--labels" not in note]
    kept, skipped = [], []
    for i, own in enumerate(which):
        lacking = [side.name for side, found in zip(sides, places, strict=True) if not found[i]]
        if lacking:
            skipped.append((rows.names[own[0]], f"there is no {lacking[0]}, or it cannot be read"))
        else:
            kept.append(i)
    if not kept:
        raise UserError(f"{rows.given} has no whole pair: {some([f'{name}: {why}' for name, why in skipped])}")
    if skipped:
        left = f"{counted(len(skipped), 'pairs')} of {len(which):,} left out"
        notes.append(f"{left}: {some([f'{name} ({why})' for name, why in skipped])}.")
    if len(which) < len(rows.names):
        notes.append(f"{len(rows.names):,} rows are {len(which):,} samples: rows of one {sides[0].name} are one.")
    first = torch.tensor([which[i][0] for i in kept])
    samples = PairSamples(
        names=[rows.names[i] for i in first.tolist()],
        label=known.label[first],
        classes=known.classes,
        group=known.group[first],
        attribute=known.attribute[first],
        split=[known.split[i] for i in first.tolist()],
        skipped=skipped,
        notes=notes,
        label_column=wanted.name if labels is None and bool((known.label != MISSING).any()) else "",
        max_bad=min((side.max_bad for side in opened.values() if side.max_bad is not None), default=None),
        sides=opened,
        kinds={side.name: side.kind for side in sides},
        rows=[tuple(found[i] for found in places) for i in kept],
    ).compact()
    samples.digest = samples.parts()
    return _grouped(samples)


def columns(data: Any) -> list[str] | None:
    """The names of the columns that data have, before they are read; None where only reading tells."""
    if not isinstance(data, str | os.PathLike):
        return list(map(str, data)) if isinstance(data, Mapping) else None
    path = Path(data)
    if not path.exists():
        raise NotFound(f"There is nothing at '{path}'. Wanted: {WANTED}.")
    if path.suffix.lower() == ".npz":
        return list(_arrays(path))
    return tables.header(path) if path.name.lower().endswith(ENDINGS) else []


def _read(data: Any, sides: Sequence[Side]) -> Rows:
    """The rows of the data. Raises ValueError where they lack a column, or hold sides of unequal length."""
    given = f"'{data}'" if isinstance(data, str | os.PathLike) else f"the {type(data).__name__}"
    columns, root = [name for side in sides for name in side.columns], None
    if isinstance(data, str | os.PathLike):
        path = Path(data)
        root = path.parent
        if not path.exists():
            raise NotFound(f"There is nothing at '{path}'. Wanted: {WANTED}.")
        if path.is_dir():
            return _folder(path, sides, given)
        if path.suffix.lower() == ".npz":
            data = _arrays(path)
        elif not path.name.lower().endswith(ENDINGS):
            raise UserError(f"{given} holds no pairs that can be read here. Wanted: {WANTED}.")
    if isinstance(data, tuple):
        if columns or len(data) != len(sides):
            raise UserError(
                f"a tuple of {len(data)} holds the sides in order, and --pair names {len(sides)}"
                + (f", with the column {columns[0]!r}: leave columns out" if columns else "")
            )
        sides = [replace(side, columns=(side.name,)) for side in sides]
        data = {side.name: part for side, part in zip(sides, data, strict=True)}
    elif not columns:
        raise UserError(f"{given}: --pair must name the column of each side, such as image=path,text=caption")
    held: dict[Any, Any] = dict(data) if isinstance(data, Mapping) else {}
    table = None if isinstance(data, Mapping) else tables.read(data)[0]
    there = list(map(str, held)) if table is None else table.column_names
    found: dict[str, list[Any]] = {}
    for name in dict.fromkeys(name for side in sides for name in side.columns):
        real = csv.column(there, name)
        if real is None:
            raise UserError(f"{given} has no column {name!r}, which --pair names; it has {', '.join(map(repr, there))}")
        found[name] = _values(held[real]) if table is None else table[real].to_pylist()
    counts = {name: len(values) for name, values in found.items()}
    if len(set(counts.values())) > 1:
        shown = " and ".join(f"{count:,} of {name!r}" for name, count in counts.items())
        raise UserError(f"{given} has sides of unequal length, {shown}: each entry belongs to one of the other side")
    n = next(iter(counts.values()))
    if table is None:
        plain = {str(name): v for name, v in held.items() if name not in found and _is_plain(v, n)}
        table = tables.read(plain)[0] if plain else None
    cells = []
    for side in sides:
        rows = zip(*(found[name] for name in side.columns), strict=True)
        cells.append([_entries(row[0] if len(row) == 1 else row) for row in rows])
    return Rows(given=given, names=list(map(str, range(n))), cells=cells, root=root, known=table)


def _folder(path: Path, sides: Sequence[Side], given: str) -> Rows:
    """The files below a folder, those of one stem together."""
    if named := [name for side in sides for name in side.columns]:
        of = ",".join(side.kind for side in sides)
        raise UserError(f"{given} is a folder and has no column {named[0]!r}: give --pair {of}, or a table")
    if len({side.kind for side in sides}) < len(sides):
        raise UserError(f"{given} is a folder, whose files do not tell sides of one kind apart: give a table")
    files, _ = files_below(path)
    held: dict[str, list[list[Any]]] = {}
    for file in files:
        for k, side in enumerate(sides):
            if (entries := kinds.of(side.kind).beside(path / file)) is not None:
                stem = name_text(file.removesuffix(Path(file).suffix))
                held.setdefault(stem, [[] for _ in sides])[k] += filter(_is_there, entries)
                break
    if not held:
        raise UserError(f"{given} has no files of these kinds, {', '.join(side.kind for side in sides)}")
    return Rows(given=given, names=list(held), cells=[[own[k] for own in held.values()] for k in range(len(sides))])


def _arrays(path: Path) -> dict[str, Any]:
    """What a .npz file holds, by name."""
    try:
        with np.load(path, allow_pickle=False) as file:
            held = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"'{path}' cannot be read as a NumPy file ({error}).") from error
    return {name: _apart(array, held.get("offsets")) for name, array in held.items()}


def _apart(array: np.ndarray, offsets: np.ndarray | None) -> Any:
    """An array; or, of encoded items that lie in it end to end by N + 1 offsets, each item's bytes."""
    if array.ndim != 1 or array.dtype != np.uint8 or offsets is None or offsets.ndim != 1:
        return array
    if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != len(array) or (np.diff(offsets) < 0).any():
        return array
    return [array[start:end].tobytes() for start, end in pairwise(offsets.tolist())]


def _values(column: Any) -> list[Any]:
    """A column that Python holds, as a list: of an array of several dimensions the parts of its first one."""
    if isinstance(column, np.ndarray) and column.ndim == 0:
        raise WrongType(f"a column holds a value for each row, and this is {column.item()!r}")
    return column.tolist() if isinstance(column, np.ndarray) and column.ndim == 1 else list(column)


def _is_plain(column: Any, rows: int) -> bool:
    """Whether a column holds words or numbers, one a row."""
    return (
        getattr(column, "ndim", 1) == 1
        and len(column) == rows
        and all(isinstance(value, str | int | float | np.generic | None) for value in column)
    )


def _entries(cell: Any) -> list[Any]:
    """The entries of a cell: those of a list, or the cell itself, or none where it is empty."""
    return [entry for entry in (cell if isinstance(cell, list) else [cell]) if _is_there(entry)]


def _is_there(entry: Any) -> bool:
    if isinstance(entry, tuple):
        return any(map(_is_there, entry))
    nothing = (isinstance(entry, str) and not entry.strip()) or (isinstance(entry, float) and entry != entry)
    return entry is not None and not nothing


def _key(entry: Any) -> Hashable:
    """By which entries are known to be the same."""
    if isinstance(entry, np.ndarray | Tensor):
        array = entry.numpy() if isinstance(entry, Tensor) else entry
        return array.shape, str(array.dtype), array.tobytes()
    if isinstance(entry, Mapping):
        return tuple((name, _key(value)) for name, value in entry.items())
    if isinstance(entry, tuple):
        return tuple(map(_key, entry))
    return entry if isinstance(entry, str | bytes | int | float) else id(entry)


def _joined(rows: Rows, known: Labels, first: Side) -> list[list[int]]:
    """Which rows each sample is made of: those whose first side is the same.

    Raises ValueError where such rows contradict each other in what is known of them.
    """
    of: dict[Hashable, list[int]] = {}
    for row, cells in enumerate(rows.cells[0]):
        of.setdefault(tuple(map(_key, cells)) or ("", row), []).append(row)
    for own in of.values():
        for what, values in (("label", known.label), ("split", known.split), ("group", known.group)):
            if len({values[row] if isinstance(values, list) else int(values[row]) for row in own}) > 1:
                shown = " and ".join(rows.names[row] for row in own[:2])
                raise UserError(
                    f"the rows {shown} of {rows.given} have the same {first.name}, and are one sample, but differ in "
                    f"their {what}"
                )
    return list(of.values())


def _side(
    side: Side,
    entries: list[list[Any]],
    split: list[str],
    root: Path | None,
    open_side: Callable[[Side, Any], Samples],
) -> tuple[Samples, list[tuple[int, ...]]]:
    """A side as samples of its kind, and which of them each sample of the pairs has.  entries: of each of these."""
    kind = kinds.of(side.kind)
    place: dict[Hashable, int] = {}
    distinct, parts = [], []
    for own, part in zip(entries, split, strict=True):
        for entry in own:
            if (key := _key(entry)) not in place:
                place[key] = len(distinct)
                distinct.append(entry)
                parts.append(part)
            elif part in LEARNED:
                parts[place[key]] = part
    if not distinct:
        raise UserError(f"there is nothing of the side {side.name!r} in any row")
    names = side.columns or (side.name,)
    values = zip(*distinct, strict=True) if len(names) > 1 else [distinct]
    try:
        data = kind.from_columns(dict(zip(names, map(list, values), strict=True)), parts, root)
        samples = open_side(side, data)
    except UserError as error:
        flag = f" (of this side, --sides {side.name}.SETTING=VALUE)" if " --" in str(error) else ""
        raise UserError(f"the side {side.name!r}: {error}{flag}") from error
    made: dict[int, list[int]] = {}
    of = kind.entries(samples, data)
    for row, entry in enumerate(of):
        made.setdefault(entry, []).append(row)
    samples = replace(samples, split=[parts[entry] for entry in of])
    return samples, [tuple(row for entry in own for row in made.get(place[_key(entry)], [])) for own in entries]


def _grouped(samples: PairSamples) -> PairSamples:
    """The samples, with those that hold the same on any side, or are of one group already, as one group."""
    head = list(range(len(samples)))

    def top(i: int) -> int:
        while head[i] != i:
            head[i] = head[head[i]]
            i = head[i]
        return i

    first: dict[Hashable, int] = {}
    known, of_kind = [digests(side) for side in samples.sides.values()], list(samples.kinds.values())
    for i, rows in enumerate(samples.rows):
        held = {(of_kind[k], known[k][row]) for k, own in enumerate(rows) for row in own}
        group = int(samples.group[i])
        for key in (*held, *([group] if group != MISSING else [])):
            head[top(i)] = top(first.setdefault(key, i))
    tops = [top(i) for i in range(len(samples))]
    sizes = Counter(tops)
    alone = [sizes[t] == 1 and int(samples.group[i]) == MISSING for i, t in enumerate(tops)]
    number = {t: k for k, t in enumerate(dict.fromkeys(t for t, one in zip(tops, alone, strict=True) if not one))}
    group = torch.tensor([MISSING if one else number[t] for t, one in zip(tops, alone, strict=True)])
    shared = sum(sizes[t] > 1 for t, g in zip(tops, samples.group.tolist(), strict=True) if g == MISSING)
    if shared:
        samples.notes.append(
            f"{shared:,} of {len(samples):,} pairs hold what another one holds as well: these are groups, and no "
            "negatives of each other."
        )
    return replace(samples, group=group)
