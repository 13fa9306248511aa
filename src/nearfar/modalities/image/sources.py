"""Where images are found: a folder, a list of paths, an archive, a table, an array, a NumPy file, Python objects."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from nearfar.data import csv
from nearfar.data.archives import EndToEnd, Files, Source, ignored, nothing_wanted, tar_parts
from nearfar.data.cells import LabelCells, cells
from nearfar.data.folders import files_below
from nearfar.data.labels import LabelColumn, Labels, array_labels, natural, no_labels, some, split_names
from nearfar.data.samples import Samples
from nearfar.errors import NotFound, UserError, WrongType
from nearfar.files import is_not_utf8, name_text
from nearfar.modalities.image import tiff
from nearfar.modalities.image.decode import Items
from nearfar.modalities.image.held import COLUMNS, UNDERSTOOD, Rows, held, known_columns
from nearfar.modalities.image.parquet import read_table, table_cells

SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "apng", "gif", "bmp", "dib", "webp", "avif", "tif", "tiff"),
        *("ppm", "pgm", "pbm", "pnm", "jp2", "tga", "heic", "heif"),
    )
)
"""A file with such a suffix is an image file; if it cannot be decoded, it is a bad one."""


IMAGES, LABELS = ("jpeg", "png", "offsets", "images", "videos", "x", "data"), ("labels", "y")
"""Arrays of a .npz file that hold images or videos, and those that hold labels."""

ANY_LABEL = LabelColumn()


@dataclass(slots=True)
class Opened:
    """What was found at DATA, before anything is decoded."""

    given: str
    source: Items | np.ndarray  # of an array of 8 bits: N x H x W x C
    names: list[str]
    root: Path | None = None
    labels: Labels | None = None
    notes: list[str] = field(default_factory=list)


def find(
    data: Any,
    column: LabelColumn = ANY_LABEL,
    keep: Sequence[str] = (),
    array: Callable[[Any, str], Opened] | None = None,
) -> Opened:
    """What there is to decode at DATA (see `nearfar.modalities.image.samples.open_images`).

    array: what opens an array of such a name; by default one of images.
    """
    of_array = array or _open_array
    if isinstance(data, tuple):
        if len(data) != 2:
            raise WrongType(f"a tuple of {len(data)}; wanted: a pair (images, labels), or {UNDERSTOOD}")
        opened = find(data[0], column, keep, array)
        return replace(opened, labels=array_labels(data[1], len(opened.names), noun="image", keep=keep))
    if isinstance(data, str | os.PathLike):
        return _open_path(Path(data), column, keep, of_array)
    if isinstance(data, np.ndarray | Tensor):
        column.find((), "the array")
        return of_array(data, "the array")
    if isinstance(data, list) and data and all(isinstance(item, str | os.PathLike) for item in data):
        column.find((), "the list")
        return _open_paths([os.fspath(item) for item in data])
    source, n, labels = held(data, column, keep)
    return Opened(f"the {type(data).__name__}", source, list(map(str, range(n))), labels=labels)


def _open_path(path: Path, column: LabelColumn, keep: Sequence[str], of_array: Callable[[Any, str], Opened]) -> Opened:
    insist_path(path)
    if path.is_dir():
        column.find((), f"'{path}'")
        return _open_folder(path)
    suffix = path.suffix.lower()
    if suffix in (".txt", ".csv"):
        return _open_list(path, column, keep)
    if suffix in (".npz", ".npy"):
        try:
            loaded = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"'{path}' cannot be read as a NumPy file ({error}).") from error
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            column.find((), f"'{path}'")
            return of_array(loaded, str(path))
        with loaded:
            return _open_npz(path, loaded, column, keep, of_array)
    if suffix == ".tar":
        column.find((), f"'{path}'")
        parts, names, notes = tar_parts(path, lambda name: Path(name).suffix.lower() in SUFFIXES, "image")
        names = [name_text(name) for name in names]
        return Opened(str(path), parts, names, path, notes=[*notes, *_odd(names)])
    if suffix in (".parquet", ".pq"):
        return _open_table(path, column, keep)
    remedy = (
        "Give the folder it lies in." if _is_image(path) else "If it is an archive, unpack it, or make it a plain .tar."
    )
    raise UserError(f"'{path}' is no source of images. Wanted: {_WANTED}. {remedy}")


_WANTED = (
    "a folder of images or .npy files, a .txt or .csv with one image path a line, a .tar, .parquet, .npz or .npy file"
)


def insist_path(path: Path) -> None:
    """Raise FileNotFoundError where there is nothing."""
    if not path.exists():
        raise NotFound(f"There is nothing at '{path}'. Wanted: {_WANTED}.")


def _open_folder(root: Path) -> Opened:
    names, notes = files_below(root)
    images = [name for name in names if _is_image(root / name)]
    # Beside images an array is more likely their labels or features than an image.
    images = images or [name for name in names if name.lower().endswith(".npy")]
    others = sorted(set(names) - set(images), key=natural)
    if not images:
        raise UserError(f"'{root}' {nothing_wanted(others, 'image')}. Wanted: {_WANTED}.")
    source = Files([root / name for name in images])
    names = [name_text(name) for name in images]
    return Opened(str(root), source, names, root, notes=[*notes, *ignored(others, "image"), *_odd(names)])


def _odd(names: list[str]) -> list[str]:
    """The note on names that `name_text` wrote in part as numbers of bytes."""
    odd = [name for name in names if is_not_utf8(name)]
    if not odd:
        return []
    return [
        f"{len(odd)} of {len(names)} file names are not UTF-8 ({some(odd)}): here and in tables their other bytes are "
        "written so, as \\x and two digits."
    ]


def _open_paths(paths: Sequence[str]) -> Opened:
    """A list of paths in Python. Names are relative to the folder that they have in common."""
    whole = [os.path.abspath(path) for path in paths]
    if not any(os.path.exists(path) for path in whole):
        raise UserError(f"None of the {len(whole)} paths of the list exists, for example {str(paths[0])!r}.")
    named = dict(zip(listed_names(paths), whole, strict=True))
    root = _common_folder(whole)
    notes = [*_repeated(len(paths) - len(named), "the list"), *_odd(list(named))]
    return Opened("the list", Files([Path(path) for path in named.values()]), list(named), root, notes=notes)


def listed_names(paths: Sequence[str]) -> list[str]:
    """The name of each path of a list, by which its image is known."""
    whole = [os.path.abspath(path) for path in paths]
    root = _common_folder(whole)
    return [name_text(Path(path).relative_to(root).as_posix()) for path in whole]


def _common_folder(whole: Sequence[str]) -> Path:
    return Path(os.path.commonpath([os.path.dirname(path) for path in whole]))


def _open_list(path: Path, column: LabelColumn, keep: Sequence[str]) -> Opened:
    records: list[dict[str, str]] = []
    if path.suffix.lower() == ".csv":
        header, rows = csv.read_records(path)
        there = {name: csv.column(header.cells, name) for name in ("path", *COLUMNS)}
        there[column.name] = column.find(header.cells if there["path"] else (), f"'{path}'")
        csv.insist_distinct(path, header, among=list(filter(None, there.values())))
        if there["path"]:
            records = [{name: row[found] for name, found in there.items() if found} for _, row in rows]
            records = [row | {"path": as_listed(row["path"])} for row in records if row["path"]]
            listed = [row["path"] for row in records]
        else:
            listed = [row.cells[0] for row in csv.read_rows(path)]
    else:
        column.find((), f"'{path}'")
        listed = [line.strip() for line in csv.read_text(path).splitlines()]
    listed = [as_listed(name) for name in listed if name]
    names = list(dict.fromkeys(listed))
    if not names:
        raise UserError(f"'{path}' lists no paths. Wanted: one path a line, relative to '{path.parent}'.")
    if not any((path.parent / name).exists() for name in names):
        raise UserError(
            f"None of the {len(names)} paths in '{path}' exists, for example {names[0]!r}. "
            f"Paths are relative to the list's folder, '{path.parent}'. If it is a table, call it .csv, and name its "
            "columns in the first line."
        )
    notes = _repeated(len(listed) - len(names), f"'{path}'")
    known = {row["path"]: row for row in reversed(records)}
    if torn := next((row["path"] for row in records if row != known[row["path"]]), None):
        raise UserError(f"'{path}' lists {torn!r} twice, and says two things of it. Keep one.")
    columns = {name: [known[n][name] for n in names] for name in (records[0] if records else ()) if name != "path"}
    labels = known_columns(columns, column.name, names, None, keep)
    source = Files([path.parent / name for name in names])
    return Opened(str(path), source, names, path.parent, labels=labels, notes=notes)


def root_of(path: Path) -> Path:
    """What the names of images at a path are relative to: a folder, an archive, or the folder of a list."""
    return path if path.is_dir() or path.suffix.lower() == ".tar" else path.parent


def listed_cells(path: Path, samples: Samples) -> LabelCells:
    """What the columns of a list of images (.csv, .parquet) say of each, but for the images."""
    suffix = path.suffix.lower()
    if suffix == ".csv" and path.is_file():
        header, records = csv.read_records(path)
        key = csv.column(header.cells, "path")
        rows = [row for _, row in records]
        return cells(header.cells, key, rows, samples.names, path.parent) if key else LabelCells()
    if suffix in (".parquet", ".pq") and path.is_file():
        names, columns = table_cells(path)
        key = "index" if samples.numbered else "path"
        rows = [{key: name} | {c: own[i] for c, own in columns.items()} for i, name in enumerate(names)]
        return cells([key, *columns], key, rows, samples.names, path.parent)
    return LabelCells()


def as_listed(name: str) -> str:
    """A path as it is in a list, with forward slashes."""
    return name.replace("\\", "/").removeprefix("./")


def _repeated(count: int, where: str) -> list[str]:
    return [f"Ignored {count} repeated path{'s' if count > 1 else ''} in {where}."] if count else []


def _open_npz(
    path: Path, file: Any, column: LabelColumn, keep: Sequence[str], of_array: Callable[[Any, str], Opened]
) -> Opened:
    def first(*keys: str) -> np.ndarray | None:
        key = next((key for key in keys if key in file), None)
        try:
            return None if key is None else file[key]
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"'{path}': {key!r} cannot be read ({error}). Wanted: plain numbers or text.") from error

    encoded, offsets, array = first("jpeg", "png"), first("offsets"), first("images", "videos", "x", "data")
    if encoded is not None and offsets is not None:
        if offsets.ndim != 1 or len(offsets) < 2 or offsets[-1] > len(encoded) or (np.diff(offsets) < 0).any():
            raise UserError(
                f"'{path}': offsets must rise, N + 1 for N images, up to the {len(encoded)} bytes of images."
            )
        n = len(offsets) - 1
        opened = Opened(str(path), EndToEnd(encoded, offsets), list(map(str, range(n))))
    elif array is not None:
        opened = of_array(array, str(path))
        n = len(opened.names)
    else:
        raise UserError(
            f"'{path}' holds {', '.join(map(repr, file)) or 'nothing'}. Wanted: an array named images, x or data "
            "(N x H x W or N x H x W x C, uint8), or encoded images as jpeg or png, and offsets."
        )
    there = [name for name in file if name not in IMAGES]
    known = ANY_LABEL.name not in there and any(name in LABELS for name in there)  # by another name
    own = column.find([*there, *([ANY_LABEL.name] if known else [])], f"'{path}'")
    asked = own if column.asked and own in there else None
    values, classes = (first(*LABELS), first("names")) if asked is None else (first(asked), None)
    group, split, attribute = first("group"), first("split"), first("attribute")
    if values is None and group is None and split is None and attribute is None:
        return opened
    labels = (
        no_labels(opened.names, noun="image")
        if values is None
        else array_labels(values, n, names=None if classes is None else classes.tolist(), noun="image", keep=keep)
    )
    if group is not None:
        labels.group = array_labels(group, n).label
    if attribute is not None:
        labels.attribute = array_labels(attribute, n).label
    if split is not None:
        labels.split = split_names(split.tolist(), where=f"'{path}': split")
    return replace(opened, labels=labels)


def _open_table(path: Path, column: LabelColumn, keep: Sequence[str]) -> Opened:
    table = read_table(path, column)
    source: Source
    if table.data is not None and table.offsets is not None:
        source = EndToEnd(table.data, table.offsets)
    else:
        source = Files([path.parent / name for name in table.paths])
    labels = known_columns(table.columns, column.name, table.names, table.classes, keep)
    return Opened(str(path), source, table.names, path.parent, labels=labels)


def _open_array(data: Any, given: str) -> Opened:
    if isinstance(data, Tensor):
        data = data.detach().cpu()
        data = (data.float() if data.is_floating_point() else data).numpy()  # NumPy has no bfloat16
    array = np.asarray(data)
    if array.dtype.kind not in "buif" or array.ndim not in (3, 4) or 0 in array.shape:
        raise UserError(
            f"{given} is {' x '.join(map(str, array.shape)) or 'one value'} of {array.dtype}; wanted: numbers, "
            "N x H x W or N x H x W x C."
        )
    if array.ndim == 3:
        array = array[..., None]
    elif array.shape[1] in (1, 3) and array.shape[3] > 4:
        array = array.transpose(0, 2, 3, 1)
    names = list(map(str, range(len(array))))
    if array.dtype != np.uint8:
        return Opened(given, Rows(array), names)
    if not array.flags.writeable:  # torch warns of memory that it may not write
        array = array.copy()
    return Opened(given, array, names)


_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", *tiff.MARKS)


def _is_image(path: Path) -> bool:
    """Whether a file means to be an image: by its suffix, or by its first bytes."""
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        with Files([path]).stream(0) as file:
            start = file.read(12)
    except OSError:
        return False
    return start.startswith(_SIGNATURES) or (start[:4] == b"RIFF" and start[8:] == b"WEBP")
