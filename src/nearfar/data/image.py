"""Pictures from a folder, a list of paths, or an array, as one uint8 tensor of squares.

Every picture is squashed to S x S and its true aspect kept beside it, so that a whole batch is one tensor even where
photographs vary in size; the views undo the squash when they crop. The squares live in memory, on the device if
they fit there, or are decoded batch by batch where there are too many.
"""

from __future__ import annotations

import contextlib
import csv
import io
import math
import os
import stat
import statistics
import warnings
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from nearfar.data.labels import Labels, array_labels, folder_labels, natural, no_labels, some, table_labels

SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "apng", "gif", "bmp", "dib", "webp", "avif", "tif", "tiff"),
        *("ppm", "pgm", "pbm", "pnm", "jp2", "tga", "heic", "heif"),
    )
)
"""A file with such a suffix is an image file; if it cannot be decoded, it is a bad one."""

Progress = Callable[[int, int], None]
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Images:
    """N pictures as C x S x S squares of uint8, and what is known of each.

    names: path below DATA with forward slashes, or the index as text for an array.
    label, group: N, int64, or MISSING.  classes: the name of each class number.  split: N names, "" where unknown.
    channels: C, 1 or 3 (any number for arrays).  side: S.  aspect: N, width / height of the picture before the squash.
    skipped: (name, reason) of each bad file.  notes: sentences for the user.
    """

    names: list[str]
    label: Tensor
    classes: list[str]
    group: Tensor
    split: list[str]
    channels: int
    side: int
    aspect: Tensor
    store: Cache | OnDemand
    rows: Tensor  # N, where each picture stands in the store
    skipped: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def cached(self) -> bool:
        """Whether the squares are held in memory; else each call of `pixels` decodes."""
        return isinstance(self.store, Cache)

    def pixels(self, index: Tensor) -> Tensor:
        """The squares of some pictures: n x C x S x S, uint8, where the cache is (see `to`), else on the CPU."""
        return self.store.pixels(self.rows[index.to(self.rows.device)])

    def original(self, i: int) -> Image.Image:
        """Picture i at its full size, upright, on white: mode L or RGB."""
        return self.store.original(int(self.rows[i]))

    def subset(self, index: Tensor | Sequence[int]) -> Images:
        """Some of the pictures, in the order given. Class numbers and the cache are shared."""
        index = torch.as_tensor(index, dtype=torch.int64, device="cpu")
        which = index.tolist()
        return replace(
            self,
            names=[self.names[i] for i in which],
            label=self.label[index],
            group=self.group[index],
            split=[self.split[i] for i in which],
            aspect=self.aspect[index],
            rows=self.rows[index.to(self.rows.device)],
        )

    def to(self, device: torch.device | str, *, share: float = 0.4) -> Images:
        """The same pictures with their cache on `device`, or as they are where it takes more than `share` of the free
        memory there, or there is no cache."""
        device = torch.device(device)
        if not isinstance(self.store, Cache) or self.store.squares.device == device:
            return self
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if len(self) * self.channels * self.side**2 > share * free:
                return self
        squares = self.store.squares
        whole = torch.equal(self.rows.cpu(), torch.arange(len(squares)))
        squares = (squares if whole else squares[self.rows]).to(device)
        source = self.rows.cpu() if self.store.source_rows is None else self.store.source_rows[self.rows.cpu()]
        return replace(
            self, store=Cache(squares, self.store.source, source), rows=torch.arange(len(self), device=device)
        )


def open_images(
    data: str | Path | np.ndarray | Tensor | tuple[Any, Any],
    *,
    labels: str | Path | Sequence | np.ndarray | Tensor | None = None,
    label_column: str = "label",
    side: int | None = None,
    size: int = 224,
    max_bad: float = 0.05,
    memory: float | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Images:
    """Open pictures for training.

    data: one of
        a folder: every image below it, at any depth, in natural order; hidden files are ignored, links followed once;
        a list, .txt or .csv: one path a line, relative to the list's folder (of a .csv the column path, or the first);
        an array or tensor, uint8, N x H x W or N x H x W x C (C x H x W where only that makes sense), or a .npy file;
        a pair (array, labels);
        a .npz file with such an array as images, x or data, or with encoded pictures end to end as jpeg and their N + 1
        offsets; optional labels or y, names (of the classes), group, split.
    labels: "folders" (see `folder_labels`), a table (see `table_labels`), or an array. None takes the labels that a
        .npz file brings, else none.  label_column: the table's column.
    side: S of the stored squares. Default: an array's own; for files the median short side, at most 2 x size.
    size: the side of the views to be cut from them.
    max_bad: the share of image files that may fail to decode before this is an error; they are skipped and listed.
    memory: bytes that the cache may take; beyond, pictures are decoded when asked for. Default: half of what is free.
    workers: decoding threads. Default: one a core.  progress: called with (done, all) while files are decoded.

    Raises FileNotFoundError where there is nothing at `data`, ValueError where it holds no pictures, too many bad ones,
    or labels that do not fit.
    """
    opened = _open(data)
    known = _labels(opened, labels, label_column)
    notes = [*opened.notes, *known.notes]
    if isinstance(opened.source, Arrays):
        store, aspect = opened.source.squashed(side)
        return Images(
            names=opened.names,
            label=known.label,
            classes=known.classes,
            group=known.group,
            split=known.split,
            channels=store.squares.shape[1],
            side=store.squares.shape[-1],
            aspect=aspect,
            store=store,
            rows=torch.arange(len(opened.names)),
            notes=notes,
        )

    workers = workers or _cores()
    memory = _free_memory() / 2 if memory is None else memory
    # Pillow warns of odd metadata in files that it reads well; the user can do nothing about it.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `_checked` makes it an error
        heads = _threaded(lambda i: _attempt(_head, opened.source.stream, i), len(opened.names), workers, None)
        bad = {i: head for i, head in enumerate(heads) if isinstance(head, str)}
        good = [head for head in heads if not isinstance(head, str)]
        _check_bad(opened, bad, max_bad)
        side = side or min(round(statistics.median(head.short for head in good)), 2 * size)
        channels = 1 if all(head.grey for head in good) else 3
        fits = len(good) * channels * side**2 <= memory
        store, aspect, bad = _decode_all(opened.source, bad, len(opened.names), side, channels, fits, workers, progress)
    _check_bad(opened, bad, max_bad)

    grey = sum(head.grey for head in good)
    if channels == 3 and grey:
        notes.append(f"{grey} of {len(good)} pictures are grey; they are read as colour, like the others.")
    if not fits:
        notes.append(
            f"{len(good)} pictures of {side} x {side} take {len(good) * channels * side**2 / 2**30:.1f} GiB, more than "
            f"the {memory / 2**30:.1f} GiB set aside: they are decoded batch by batch, which is slower."
        )
    kept = [i for i in range(len(opened.names)) if i not in bad]
    index = torch.tensor(kept)
    return Images(
        names=[opened.names[i] for i in kept],
        label=known.label[index],
        classes=known.classes,
        group=known.group[index],
        split=[known.split[i] for i in kept],
        channels=channels,
        side=side,
        aspect=aspect[index],
        store=store,
        rows=torch.arange(len(kept)) if fits else index,
        skipped=[(opened.names[i], bad[i]) for i in sorted(bad)],
        notes=notes,
    )


class Source(Protocol):
    """Encoded pictures."""

    def stream(self, row: int) -> BinaryIO: ...


@dataclass(slots=True)
class Files:
    paths: list[Path]

    def stream(self, row: int) -> BinaryIO:
        path = self.paths[row]
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            raise OSError("not a regular file")
        return path.open("rb")


@dataclass(slots=True)
class EndToEnd:
    """Encoded pictures in one buffer: picture i is data[offsets[i] : offsets[i + 1]]."""

    data: np.ndarray
    offsets: np.ndarray

    def stream(self, row: int) -> BinaryIO:
        return io.BytesIO(self.data[self.offsets[row] : self.offsets[row + 1]].tobytes())


@dataclass(slots=True)
class Arrays:
    """Pictures that are decoded already: N x H x W x C, uint8."""

    data: np.ndarray

    def squashed(self, side: int | None) -> tuple[Cache, Tensor]:
        n, height, width, channels = self.data.shape
        side = side or round((height * width) ** 0.5)
        squares = torch.from_numpy(self.data).permute(0, 3, 1, 2)  # N x C x H x W
        if (height, width) != (side, side):
            small = torch.empty(n, channels, side, side, dtype=torch.uint8)
            for start in range(0, n, 1024):
                chunk = squares[start : start + 1024].float()
                chunk = F.interpolate(chunk, (side, side), mode="bicubic", antialias=True)
                small[start : start + 1024] = chunk.round_().clamp_(0, 255)
            squares = small
        return Cache(squares.contiguous(), self), torch.full((n,), width / height)

    def original(self, row: int) -> Image.Image:
        picture = self.data[row]
        return Image.fromarray(picture[:, :, :3] if picture.shape[2] >= 3 else picture[:, :, 0])


@dataclass(slots=True)
class Cache:
    """Squares held in memory: N x C x S x S, uint8."""

    squares: Tensor
    source: Source | Arrays
    source_rows: Tensor | None = None  # N, where each square's picture stands in the source; None: in the same place

    def pixels(self, rows: Tensor) -> Tensor:
        return self.squares.index_select(0, rows)

    def original(self, row: int) -> Image.Image:
        row = row if self.source_rows is None else int(self.source_rows[row])
        return self.source.original(row) if isinstance(self.source, Arrays) else decode(self.source.stream(row))


@dataclass(slots=True)
class OnDemand:
    """Squares that are decoded each time they are asked for, by a pool of threads."""

    source: Source
    side: int
    channels: int
    workers: int

    def pixels(self, rows: Tensor) -> Tensor:
        where = rows.tolist()
        squares = torch.empty(len(where), self.channels, self.side, self.side, dtype=torch.uint8)
        view = squares.numpy()

        def fill(i: int) -> None:
            with self.source.stream(where[i]) as file:
                view[i], _ = square(file, self.side, self.channels)

        _threaded(fill, len(where), self.workers, None)
        return squares

    def original(self, row: int) -> Image.Image:
        return decode(self.source.stream(row))


def decode(file: BinaryIO) -> Image.Image:
    """A picture at its full size, upright, on white: mode L or RGB. Closes the file."""
    with file, Image.open(file) as image:
        _checked(image)
        picture = _plain(image)
        turn = _TURNS.get(_orientation(image))
        return picture if turn is None else picture.transpose(turn)


def square(file: BinaryIO, side: int, channels: int) -> tuple[np.ndarray, float]:
    """A picture squashed to C x S x S, and its width / height before."""
    with Image.open(file) as image:
        _checked(image)
        width, height = image.size
        # A JPEG can be decoded at a half, a quarter or an eighth; twice the side is kept for a good reduction.
        image.draft(None, (2 * side, 2 * side))
        picture = _plain(image)
        if picture.size != (side, side):
            picture = picture.resize((side, side), Image.Resampling.BICUBIC, reducing_gap=3.0)
        orientation = _orientation(image)
        if orientation in _TURNS:  # a square turns faster than the picture
            picture = picture.transpose(_TURNS[orientation])
        if orientation >= 5:
            width, height = height, width
        pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
        return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1), width / height


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture upright, by its EXIF orientation."""


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # broken EXIF data, of which Pillow raises many kinds: the picture itself is well
        return 1
    return orientation if orientation in _TURNS else 1


def _plain(image: Image.Image) -> Image.Image:
    """The picture as L or RGB, 8 bits a channel, transparency laid on white."""
    if image.mode in _DEEP:
        return Image.fromarray(_eight_bits(np.asarray(image)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    if image.mode in ("L", "RGB"):
        image.load()
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


_DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_GREY = ("1", "L", "LA", "La", *_DEEP)


def _eight_bits(deep: np.ndarray) -> np.ndarray:
    """Grey of 16 bits, or of floats from 0 to 1 or to 255, as uint8."""
    low, high = deep.min(), deep.max()
    if np.issubdtype(deep.dtype, np.integer) and low >= 0 and high <= 65535:
        return ((deep.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if np.issubdtype(deep.dtype, np.floating) and low >= 0 and high <= 255:
        return (deep * (255 if high <= 1 else 1)).round().astype(np.uint8)
    raise ValueError(f"grey values from {low} to {high}; wanted 0 to 65535, or floats from 0 to 1 or to 255")


@dataclass(slots=True)
class Head:
    """What a picture's first bytes tell."""

    short: int  # its short side in pixels
    grey: bool


def _head(file: BinaryIO) -> Head:
    with file, Image.open(file) as image:
        _checked(image)
        grey = image.mode in _GREY
        if image.mode == "P":
            palette = np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
            grey = bool((palette == palette[:, :1]).all())
        return Head(min(image.size), grey)


def _checked(image: Image.Image) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise ValueError(f"{image.width} x {image.height} pixels, above Pillow's limit of {limit} (decompression bomb)")


def _attempt(work: Callable[[BinaryIO], T], stream: Callable[[int], BinaryIO], row: int) -> T | str:
    """The work's result, or why it failed."""
    try:
        with stream(row) as file:
            return work(file)
    except UnidentifiedImageError:
        return "not an image that Pillow knows"
    except Exception as error:  # decoders of broken files raise nearly everything
        return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _threaded(work: Callable[[int], Any], n: int, workers: int, progress: Progress | None) -> list[Any]:
    """[work(0), ..., work(n - 1)] by threads, in runs long enough that handing them out costs nothing."""
    run = max(1, min(64, n // (4 * workers)))
    done = []
    with ThreadPoolExecutor(max(1, min(workers, n))) as pool:
        for results in pool.map(lambda a: [work(i) for i in range(a, min(a + run, n))], range(0, n, run)):
            done += results
            if progress is not None:
                progress(len(done), n)
    return done


def _decode_all(
    source: Source,
    bad: dict[int, str],
    n: int,
    side: int,
    channels: int,
    keep: bool,
    workers: int,
    progress: Progress | None,
) -> tuple[Cache | OnDemand, Tensor, dict[int, str]]:
    """Decode every picture once: the store, the aspect of each of the N rows, and why bad ones are bad.

    That is done even where the squares are not kept, so that no broken file ends a run in its second hour.
    """
    rows = [i for i in range(n) if i not in bad]
    squares = torch.empty(len(rows) if keep else 0, channels, side, side, dtype=torch.uint8)
    view = squares.numpy()
    aspect = torch.zeros(n)

    def fill(j: int) -> str | None:
        result = _attempt(lambda file: square(file, side, channels), source.stream, rows[j])
        if isinstance(result, str):
            return result
        if keep:
            view[j] = result[0]
        aspect[rows[j]] = result[1]
        return None

    failed = {rows[j]: why for j, why in enumerate(_threaded(fill, len(rows), workers, progress)) if why is not None}
    bad = bad | failed
    if not keep:
        return OnDemand(source, side, channels, workers), aspect, bad
    kept = [j for j, row in enumerate(rows) if row not in failed]
    if failed:  # close the gaps in place: a copy of the whole might not fit
        for to, j in enumerate(kept):
            view[to] = view[j]
    return Cache(squares[: len(kept)], source, torch.tensor([rows[j] for j in kept])), aspect, bad


def _check_bad(opened: Opened, bad: dict[int, str], max_bad: float) -> None:
    n = len(opened.names)
    first = "; ".join(f"{opened.names[i]!r}: {bad[i]}" for i in sorted(bad)[:3]) + ("; ..." if len(bad) > 3 else "")
    if len(bad) == n:
        raise ValueError(f"None of the {n} image files of '{opened.given}' can be decoded ({first}).")
    if len(bad) > max_bad * n:
        raise ValueError(
            f"{len(bad)} of {n} image files of '{opened.given}' cannot be decoded, {len(bad) / n:.1%} where "
            f"{max_bad:.1%} are allowed ({first}). Mend or remove them, or allow more: "
            f"--max-bad {math.ceil(len(bad) / n * 100) / 100:g}."
        )


@dataclass(slots=True)
class Opened:
    """What was found at DATA, before anything is decoded."""

    given: str
    source: Files | EndToEnd | Arrays
    names: list[str]
    root: Path | None = None
    labels: Labels | None = None
    notes: list[str] = field(default_factory=list)


def _open(data: str | Path | np.ndarray | Tensor | tuple[Any, Any]) -> Opened:
    if isinstance(data, tuple):
        array, values = data
        opened = _open_array(array, "the array")
        return replace(opened, labels=array_labels(values, len(opened.names)))
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
            return _open_npz(path, loaded) if suffix == ".npz" else _open_array(loaded, str(path))
        except (zipfile.BadZipFile, EOFError, OSError) as error:
            raise ValueError(f"'{path}' cannot be read as a NumPy file ({error}).") from error
    remedy = "Give the folder it lies in." if _is_image(path) else "If it is an archive, unpack it."
    raise ValueError(f"'{path}' is no source of pictures. Wanted: {_WANTED}. {remedy}")


_WANTED = "a folder of images, a .txt or .csv with one image path a line, or an .npz or .npy file"


def _open_folder(root: Path) -> Opened:
    names, notes = _files_below(root)
    images = [name for name in names if _is_image(root / name)]
    others = sorted(set(names) - set(images), key=natural)
    if not images:
        found = f"holds {len(others)} files, none of them an image ({some(others)})" if others else "is empty"
        raise ValueError(f"'{root}' {found}. Wanted: {_WANTED}.")
    if others:
        notes.append(f"{len(others)} files are no images and were ignored ({some(others)}).")
    return Opened(str(root), Files([root / name for name in images]), images, root, notes=notes)


def _open_list(path: Path) -> Opened:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"'{path}' is no list of paths in UTF-8 ({error}).") from error
    listed = [line.strip() for line in lines]
    if path.suffix.lower() == ".csv":
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines, skipinitialspace=True) if row]
        column = rows[0].index("path") if rows and "path" in rows[0] else None
        listed = [row[0] for row in rows] if column is None else [r[column] for r in rows[1:] if len(r) > column]
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
        except ValueError as error:
            raise ValueError(f"'{path}': {found!r} cannot be read ({error}). Wanted: plain numbers or text.") from error

    encoded, offsets, array = first("jpeg"), first("offsets"), first("images", "x", "data")
    if encoded is not None and offsets is not None:
        if offsets.ndim != 1 or len(offsets) < 2 or offsets[-1] > len(encoded) or (np.diff(offsets) < 0).any():
            raise ValueError(f"'{path}': offsets must rise, N + 1 for N pictures, up to the {len(encoded)} jpeg bytes.")
        n = len(offsets) - 1
        opened = Opened(str(path), EndToEnd(encoded, offsets), list(map(str, range(n))))
    elif array is not None:
        opened = _open_array(array, str(path))
        n = len(opened.names)
    else:
        raise ValueError(
            f"'{path}' holds {', '.join(map(repr, file)) or 'nothing'}. Wanted: an array named images, x or data "
            "(N x H x W or N x H x W x C, uint8), or encoded pictures as jpeg and offsets."
        )
    values, classes, group, split = first("labels", "y"), first("names"), first("group"), first("split")
    if values is None and group is None and split is None:
        return opened
    labels = no_labels(opened.names) if values is None else array_labels(values, n, names=classes)
    if group is not None:
        labels.group = array_labels(group, n).label
    if split is not None:
        labels.split = [str(name) for name in split]
    return replace(opened, labels=labels)


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
    return Opened(given, Arrays(array), list(map(str, range(len(array)))))


def _labels(opened: Opened, labels: str | Path | Sequence | np.ndarray | Tensor | None, column: str) -> Labels:
    if labels is None:
        return opened.labels or no_labels(opened.names)
    if not isinstance(labels, str | Path):
        return array_labels(labels, len(opened.names))
    if str(labels) != "folders":
        return table_labels(labels, opened.names, column=column, root=opened.root)
    if opened.root is None:
        raise ValueError(f"--labels folders wants a folder of images; '{opened.given}' has no folders.")
    return folder_labels(opened.names)


def _files_below(root: Path) -> tuple[list[str], list[str]]:
    """Paths of the files below root, in natural order, and notes. Hidden files and folders are left out.

    Links are followed after everything that is really there, and only to what was not yet seen: a loop ends, and a
    picture that is linked to twice counts once.
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


_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")


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


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free_memory() -> float:
    """Bytes of memory that this process may still take: what the system and its container leave, shared between the
    processes that were started together on this machine."""
    free = (
        [4 * 2**30] if not hasattr(os, "sysconf") else [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2]
    )
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")] or free
    group = Path("/sys/fs/cgroup")
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # no such group, or "max": no limit
            free.append(int((group / limit).read_text()) - int((group / used).read_text()))
    return max(0, min(free)) / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
