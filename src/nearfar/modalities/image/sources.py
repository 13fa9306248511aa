"""Where images are found: a folder, a list of paths, an archive, a table, an array, a NumPy file."""

from __future__ import annotations

import io
import os
import stat
import zipfile
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from torch import Tensor

from nearfar.data import csv
from nearfar.data.archives import Parts, read_table, tar_parts
from nearfar.data.labels import Labels, array_labels, natural, no_labels, some
from nearfar.modalities.image import tiff

SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "apng", "gif", "bmp", "dib", "webp", "avif", "tif", "tiff"),
        *("ppm", "pgm", "pbm", "pnm", "jp2", "tga", "heic", "heif"),
    )
)
"""A file with such a suffix is an image file; if it cannot be decoded, it is a bad one."""


@dataclass(slots=True)
class Files:
    """Encoded images in files."""

    paths: list[Path]

    def stream(self, row: int) -> BinaryIO:
        path = self.paths[row]
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            raise OSError("not a regular file")
        return path.open("rb")

    def read(self, row: int) -> bytes:
        with self.stream(row) as file:
            return file.read()


@dataclass(slots=True)
class EndToEnd:
    """Encoded images in one buffer: image i is data[offsets[i] : offsets[i + 1]]."""

    data: np.ndarray
    offsets: np.ndarray

    def stream(self, row: int) -> BinaryIO:
        return io.BytesIO(self.read(row))

    def read(self, row: int) -> bytes:
        return self.data[self.offsets[row] : self.offsets[row + 1]].tobytes()


@dataclass(slots=True)
class Opened:
    """What was found at DATA, before anything is decoded."""

    given: str
    source: Files | Parts | EndToEnd | np.ndarray  # of an array: N x H x W x C, uint8
    names: list[str]
    root: Path | None = None
    labels: Labels | None = None
    notes: list[str] = field(default_factory=list)


def find(data: str | Path | np.ndarray | Tensor | tuple[Any, Any], label_column: str = "label") -> Opened:
    """What there is to decode at DATA (see `nearfar.modalities.image.samples.open_images`)."""
    if isinstance(data, tuple):
        array, values = data
        opened = _open_array(array, "the array")
        return replace(opened, labels=array_labels(values, len(opened.names), noun="image"))
    if not isinstance(data, str | Path):
        return _open_array(data, "the array")
    path = Path(data)
    if not path.exists():
        raise FileNotFoundError(f"There is nothing at '{path}'. Wanted: {_WANTED}.")
    if path.is_dir():
        return _open_folder(path)
    suffix = path.suffix.lower()
    if suffix in (".txt", ".csv"):
        return _open_list(path)
    if suffix in (".npz", ".npy"):
        try:
            loaded = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"'{path}' cannot be read as a NumPy file ({error}).") from error
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            return _open_array(loaded, str(path))
        with loaded:
            return _open_npz(path, loaded)
    if suffix == ".tar":
        parts, names, notes = tar_parts(path, lambda name: Path(name).suffix.lower() in SUFFIXES)
        return Opened(str(path), parts, names, path, notes=notes)
    if suffix in (".parquet", ".pq"):
        return _open_table(path, label_column)
    remedy = (
        "Give the folder it lies in." if _is_image(path) else "If it is an archive, unpack it, or make it a plain .tar."
    )
    raise ValueError(f"'{path}' is no source of images. Wanted: {_WANTED}. {remedy}")


_WANTED = (
    "a folder of images or .npy files, a .txt or .csv with one image path a line, a .tar, .parquet, .npz or .npy file"
)


def _open_folder(root: Path) -> Opened:
    names, notes = _files_below(root)
    images = [name for name in names if _is_image(root / name)]
    # Beside images an array is more likely their labels or features than an image.
    images = images or [name for name in names if name.lower().endswith(".npy")]
    others = sorted(set(names) - set(images), key=natural)
    if not images:
        found = f"holds {len(others)} files, none of them an image ({some(others)})" if others else "is empty"
        raise ValueError(f"'{root}' {found}. Wanted: {_WANTED}.")
    if others:
        notes.append(f"{len(others)} files are no images and were ignored ({some(others)}).")
    return Opened(str(root), Files([root / name for name in images]), images, root, notes=notes)


def _open_list(path: Path) -> Opened:
    if path.suffix.lower() == ".csv":
        rows = [row.cells for row in csv.read_rows(path)]
        column = rows[0].index("path") if rows and "path" in rows[0] else None
        listed = [row[0] for row in rows] if column is None else [r[column] for r in rows[1:] if len(r) > column]
    else:
        listed = [line.strip() for line in csv.read_text(path).splitlines()]
    listed = [name.replace("\\", "/").removeprefix("./") for name in listed if name]
    names = list(dict.fromkeys(listed))
    if not names:
        raise ValueError(f"'{path}' lists no paths. Wanted: one path a line, relative to '{path.parent}'.")
    if not any((path.parent / name).exists() for name in names):
        raise ValueError(
            f"None of the {len(names)} paths in '{path}' exists, for example {names[0]!r}. "
            f"Paths are relative to the list's folder, '{path.parent}'."
        )
    twice = len(listed) - len(names)
    notes = [f"{twice} lines of '{path}' repeat a path and were ignored."] if twice else []
    return Opened(str(path), Files([path.parent / name for name in names]), names, path.parent, notes=notes)


def _open_npz(path: Path, file: Any) -> Opened:
    def first(*keys: str) -> np.ndarray | None:
        found = next((key for key in keys if key in file), None)
        try:
            return None if found is None else file[found]
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"'{path}': {found!r} cannot be read ({error}). Wanted: plain numbers or text.") from error

    encoded, offsets, array = first("jpeg"), first("offsets"), first("images", "x", "data")
    if encoded is not None and offsets is not None:
        if offsets.ndim != 1 or len(offsets) < 2 or offsets[-1] > len(encoded) or (np.diff(offsets) < 0).any():
            raise ValueError(f"'{path}': offsets must rise, N + 1 for N images, up to the {len(encoded)} jpeg bytes.")
        n = len(offsets) - 1
        opened = Opened(str(path), EndToEnd(encoded, offsets), list(map(str, range(n))))
    elif array is not None:
        opened = _open_array(array, str(path))
        n = len(opened.names)
    else:
        raise ValueError(
            f"'{path}' holds {', '.join(map(repr, file)) or 'nothing'}. Wanted: an array named images, x or data "
            "(N x H x W or N x H x W x C, uint8), or encoded images as jpeg and offsets."
        )
    values, classes, group, split = first("labels", "y"), first("names"), first("group"), first("split")
    attribute = first("attribute")
    if values is None and group is None and split is None and attribute is None:
        return opened
    labels = (
        no_labels(opened.names)
        if values is None
        else array_labels(values, n, names=None if classes is None else classes.tolist())
    )
    if group is not None:
        labels.group = array_labels(group, n).label
    if attribute is not None:
        labels.attribute = array_labels(attribute, n).label
    if split is not None:
        labels.split = [str(name) for name in split]
    return replace(opened, labels=labels)


def _open_table(path: Path, label_column: str) -> Opened:
    table = read_table(path, label_column)
    n = len(table.names)
    if table.data is not None and table.offsets is not None:
        source: Files | EndToEnd = EndToEnd(table.data, table.offsets)
    else:
        source = Files([path.parent / name for name in table.paths])
    labels = None
    if table.columns:
        values = table.columns.get(label_column)
        labels = no_labels(table.names) if values is None else array_labels(values, n, names=table.classes)
        if "group" in table.columns:
            labels.group = array_labels(table.columns["group"], n).label
        if "attribute" in table.columns:
            labels.attribute = array_labels(table.columns["attribute"], n).label
        if "split" in table.columns:
            labels.split = [str(name or "") for name in table.columns["split"]]
    return Opened(str(path), source, table.names, path.parent, labels=labels)


def _open_array(data: Any, given: str) -> Opened:
    array = data.cpu().numpy() if isinstance(data, Tensor) else np.asarray(data)
    if array.dtype != np.uint8:
        values = f" from {array.min()} to {array.max()}" if array.size and array.dtype.kind in "iuf" else ""
        raise ValueError(
            f"{given} holds {array.dtype}{values}; wanted: uint8 from 0 to 255. Scale it to 0..255 and convert it, "
            "as in (255 * x).round().astype('uint8')."
        )
    if array.ndim not in (3, 4) or 0 in array.shape:
        raise ValueError(
            f"{given} has the shape {' x '.join(map(str, array.shape))}; wanted: N x H x W or N x H x W x C."
        )
    if array.ndim == 3:
        array = array[..., None]
    elif array.shape[1] in (1, 3) and array.shape[3] > 4:
        array = array.transpose(0, 2, 3, 1)
    if not array.flags.writeable:  # torch warns of memory that it may not write
        array = array.copy()
    return Opened(given, array, list(map(str, range(len(array)))))


def _files_below(root: Path) -> tuple[list[str], list[str]]:
    """Paths of the files below root, in natural order, and notes. Hidden files and folders are left out.

    Links are followed after everything that is really there, and only to what was not yet seen: a loop ends, and a
    image that is linked to twice counts once.
    """
    names, links, notes = [], [], []
    seen: set[tuple[int, int]] = set()

    def scan(folder: str) -> None:
        pending = [folder]
        while pending:
            folder = pending.pop()
            try:
                here = os.stat(root / folder)
                if (here.st_dev, here.st_ino) in seen:
                    continue
                seen.add((here.st_dev, here.st_ino))
                entries = list(os.scandir(root / folder))
            except OSError as error:
                notes.append(f"The folder '{folder}' cannot be read ({error.strerror}).")
                continue
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if entry.name.startswith("."):
                    continue
                if entry.is_symlink():
                    links.append(name)
                elif entry.is_dir():
                    pending.append(name)
                else:
                    names.append(name)
                    seen.add((here.st_dev, entry.inode()))

    scan("")
    again = 0
    while links:
        found, links = sorted(links, key=natural), []
        for name in found:
            try:
                target = os.stat(root / name)
            except OSError:  # a link to nothing, or to itself
                names.append(name)
                continue
            if stat.S_ISDIR(target.st_mode):
                scan(name)
            elif (target.st_dev, target.st_ino) in seen:
                again += 1
            else:
                seen.add((target.st_dev, target.st_ino))
                names.append(name)
    if again:
        notes.append(f"{again} links lead to files that are there already and were ignored.")
    return sorted(names, key=natural), notes


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
