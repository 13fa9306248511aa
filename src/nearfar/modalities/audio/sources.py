"""Where recordings are found: a folder, a list of paths, a table, arrays."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.data import csv, tables
from nearfar.data.archives import ignored, nothing_wanted
from nearfar.data.folders import files_below
from nearfar.data.labels import LabelColumn, Labels, array_labels, given_labels, natural, no_labels, split_names
from nearfar.errors import NotFound, UserError, WrongType
from nearfar.files import name_text
from nearfar.modalities.audio.recordings import Arrays, Files, Store
from nearfar.modalities.audio.settings import SUFFIXES, insist_installed, is_recording

WANTED = (
    f"a folder of recordings ({', '.join(sorted(SUFFIXES))}), one such file, a .txt file or a list of paths, a table "
    "or columns with a path (and start and end, in seconds), a .npz file of audio and offsets, or a list of arrays of "
    "one dimension"
)
RATES = ("rate", "sample_rate", "sampling_rate", "sr")
"""What the samples a second may be called in a .npz file."""


@dataclass(slots=True)
class Opened:
    """What was found at DATA, before anything is read.

    names: of the entries.  row: of each, which recording of the store it is of.  span: seconds of it, from and to; None
    where entries are whole recordings.  root: what names are relative to.
    """

    given: str
    store: Store
    names: list[str]
    row: list[int]
    span: list[tuple[float, float]] | None = None
    root: Path | None = None
    labels: Labels | None = None
    notes: list[str] = field(default_factory=list)


def find(data: Any, *, labels: Any, column: LabelColumn, keep: Sequence[str], array_rate: int) -> Opened:
    """What there is to read at DATA (see `WANTED`), and what is known of each entry.

    labels, column, keep: as `given_labels` takes them; None for those that the data bring.
    """
    own = column if labels is None else LabelColumn(column.name)
    if isinstance(data, tuple) and len(data) == 2:
        opened = find(data[0], labels=None, column=LabelColumn(), keep=keep, array_rate=array_rate)
        opened.labels = array_labels(data[1], len(opened.names), noun="recording", keep=keep)
    elif isinstance(data, str | os.PathLike):
        opened = _open_path(Path(data), own, keep, array_rate)
    elif isinstance(data, list) and data and all(isinstance(item, str | os.PathLike) for item in data):
        own.find((), "the list")
        opened = _files("the list", list(map(os.fspath, data)), None)
    elif isinstance(data, list):
        own.find((), "the list")
        opened = _arrays(data, array_rate)
    elif isinstance(data, Mapping) or hasattr(data, "columns"):
        opened = _open_table(data, own, keep)
    else:
        raise WrongType(f"a {type(data).__name__} holds no recordings that are understood here; wanted: {WANTED}")
    known = opened.labels or no_labels(opened.names, noun="recording")
    if labels is not None:
        if isinstance(labels, str | Path) and str(labels) == "folders" and opened.root is None:
            raise UserError(f"--labels folders wants a folder of recordings; {opened.given} has no folders.")
        made = given_labels(labels, opened.names, column=column, root=opened.root, noun="recording", keep=keep)
        known = made.beside(known.group, known.attribute, known.split)
    opened.labels = known
    opened.notes += known.notes
    return opened


def insist_path(path: Path) -> None:
    """Raise FileNotFoundError where there is nothing."""
    if not path.exists():
        raise NotFound(f"There is nothing at '{path}'. Wanted: {WANTED}.")


def listed_names(paths: Sequence[str]) -> list[str]:
    """The name of each path of a list, relative to the folder that they have in common."""
    whole = [os.path.abspath(path) for path in paths]
    root = os.path.commonpath([os.path.dirname(path) for path in whole])
    return [name_text(Path(path).relative_to(root).as_posix()) for path in whole]


def _open_path(path: Path, column: LabelColumn, keep: Sequence[str], array_rate: int) -> Opened:
    insist_path(path)
    given, name = f"'{path}'", path.name.lower()
    if path.is_dir():
        column.find((), given)
        names, notes = files_below(path)
        held = [name for name in names if is_recording(name)]
        others = sorted(set(names) - set(held), key=natural)
        if not held:
            raise UserError(f"{given} {nothing_wanted(others, 'recording')}. Wanted: {WANTED}.")
        insist_installed()
        store = Files([path / name for name in held])
        notes += ignored(others, "recording")
        return Opened(given, store, list(map(name_text, held)), list(range(len(held))), root=path, notes=notes)
    if is_recording(path):
        column.find((), given)
        return _files(given, [str(path)], path.parent)
    if name.endswith(".txt"):
        column.find((), given)
        listed = [line.strip() for line in csv.read_text(path).splitlines() if line.strip()]
        if not listed:
            raise UserError(f"{given} lists no paths. Wanted: one path a line, relative to '{path.parent}'.")
        return _files(given, [str(path.parent / line) for line in listed], path.parent)
    if name.endswith(".npz"):
        return _open_npz(path, column, keep, array_rate)
    if name.endswith(tables.ENDINGS):
        return _open_table(path, column, keep)
    raise UserError(f"{given} is no source of recordings. Wanted: {WANTED}.")


def _files(given: str, paths: Sequence[str], root: Path | None) -> Opened:
    """Files of a list, each once."""
    insist_installed()
    distinct = list(dict.fromkeys(map(os.path.abspath, paths)))
    if not any(map(os.path.exists, distinct)):
        raise UserError(f"None of the {len(distinct)} paths of {given} exists, for example {paths[0]!r}.")
    repeated = len(paths) - len(distinct)
    notes = [f"Ignored {repeated} repeated path{'s' if repeated > 1 else ''} in {given}."] if repeated else []
    if root is None:
        names = listed_names(distinct)
        root = Path(os.path.commonpath([os.path.dirname(path) for path in distinct]))
    else:
        names = [name_text(os.path.relpath(path, root).replace(os.sep, "/")) for path in distinct]
    store = Files(list(map(Path, distinct)))
    return Opened(given, store, names, list(range(len(names))), root=root, notes=notes)


def _open_table(data: Any, column: LabelColumn, keep: Sequence[str]) -> Opened:
    """Rows of a table: the column path, and if there are any start and end, in seconds of that recording."""
    insist_installed()
    table, _ = tables.read(data)
    given = f"'{data}'" if isinstance(data, str | Path) else "the table"
    root = Path(data).parent if isinstance(data, str | Path) else Path()
    there = table.column_names
    if (found := csv.column(there, "path")) is None:
        raise UserError(f"{given} has no column 'path'; it has {', '.join(map(repr, there))}. Wanted: {WANTED}.")
    paths = [csv.as_text(value) for value in table[found].to_pylist()]
    if (empty := next((i for i, path in enumerate(paths) if not path), None)) is not None:
        raise UserError(f"{given}: row {empty} names no path. Name the recording, or leave the row out.")
    span = None
    if any(csv.column(there, name) for name in ("start", "end")):
        ends = [_seconds(table, name, otherwise, given) for name, otherwise in (("start", 0.0), ("end", np.inf))]
        span = list(zip(*ends, strict=True))
    distinct = list(dict.fromkeys(paths))
    if not any((root / path).exists() for path in distinct):
        raise UserError(
            f"None of the {len(distinct)} paths in {given} exists, for example {distinct[0]!r}. Paths are relative to "
            f"'{root}'."
        )
    place = {path: i for i, path in enumerate(distinct)}
    names = list(map(name_text, paths))
    if span is not None:
        names = [f"{name}@{_span(*ends)}" for name, ends in zip(names, span, strict=True)]
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise UserError(f"{given} lists {twice!r} twice. Keep one.")
    known = tables.known(table, names, given, None, column, keep, noun="recording")
    row = [place[path] for path in paths]
    if span is not None and bool((known.group == MISSING).all()) and len(distinct) < len(paths):
        known.group = torch.tensor([i if row.count(i) > 1 else MISSING for i in row])
    store = Files([root / path for path in distinct])
    return Opened(given, store, names, row, span=span, root=root, labels=known)


def _span(start: float, end: float) -> str:
    return f"{start:g}-" + ("" if end == np.inf else f"{end:g}")


def _seconds(table: Any, name: str, otherwise: float, given: str) -> list[float]:
    found = csv.column(table.column_names, name)
    if found is None:
        return [otherwise] * table.num_rows
    cells = [csv.known(csv.as_text(value)) for value in table[found].to_pylist()]
    try:
        return [float(cell) if cell else otherwise for cell in cells]
    except ValueError as error:
        raise UserError(f"{given}: the column {found!r} should hold seconds ({error})") from error


def _open_npz(path: Path, column: LabelColumn, keep: Sequence[str], array_rate: int) -> Opened:
    given = f"'{path}'"
    try:
        with np.load(path, allow_pickle=False) as file:
            held = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{given} cannot be read as a NumPy file ({error}).") from error
    if not {"audio", "offsets"} <= held.keys():
        has = ", ".join(map(repr, held)) or "nothing"
        raise UserError(f"{given} holds {has}. Wanted: audio, all recordings end to end, and offsets, N + 1.")
    audio, offsets = held["audio"], held["offsets"]
    rising = offsets.ndim == 1 and len(offsets) > 1 and offsets[0] >= 0 and bool((np.diff(offsets) >= 0).all())
    if audio.ndim != 1 or not rising or offsets[-1] > len(audio):
        raise UserError(f"{given}: offsets must rise, N + 1 for N recordings, up to the {audio.size} samples of audio.")
    rate = next((int(held[name]) for name in RATES if name in held and held[name].ndim == 0), array_rate)
    opened = _arrays([audio[a:b] for a, b in pairwise(offsets)], rate, given)
    n = len(opened.names)
    each = {name: values for name, values in held.items() if values.shape[:1] == (n,) and name != "audio"}
    usual = next((name for name in ("labels", "y") if name in each), None)
    there = [*each, *(["label"] if usual and "label" not in each else [])]
    found = column.find(there, given)
    found = usual if found == "label" and found not in each else found
    known = no_labels(opened.names, noun="recording")
    if found is not None:
        names = held.get(f"{found}_names", held.get("names") if found in ("label", "labels", "y") else None)
        classes = None if names is None else names.tolist()
        known = array_labels(each[found], n, names=classes, noun="recording", keep=keep)
    group, attribute = (array_labels(each[k], n).label if k in each else known.group for k in ("group", "attribute"))
    split = split_names(each["split"].tolist(), where=f"{given}: split") if "split" in each else known.split
    opened.labels = known.beside(group, attribute, split)
    return opened


def _arrays(items: Sequence[Any], rate: int, given: str = "the list") -> Opened:
    """Recordings in memory: arrays or tensors of one dimension, or, as the datasets library has them, mappings of an
    array and its sampling_rate."""
    waves, rates = [], []
    for i, item in enumerate(items):
        own = int(item["sampling_rate"]) if isinstance(item, Mapping) else rate
        wave = item["array"] if isinstance(item, Mapping) else item
        wave = wave.detach().cpu().numpy() if isinstance(wave, Tensor) else np.asarray(wave)
        if wave.ndim != 1 or not (wave.dtype.kind in "if" or wave.dtype == np.uint8):
            raise WrongType(
                f"recording {i} of {given} is {' x '.join(map(str, wave.shape))} of {wave.dtype}; wanted: numbers of "
                "one dimension, signed, float or uint8"
            )
        if own <= 0:
            raise UserError(f"{given} holds arrays that do not tell how many samples a second they have: --array-rate")
        waves.append(wave)
        rates.append(own)
    if not waves:
        raise UserError(f"{given} holds no recordings. Wanted: {WANTED}.")
    return Opened(given, Arrays(waves, rates), list(map(str, range(len(waves)))), list(range(len(waves))))
