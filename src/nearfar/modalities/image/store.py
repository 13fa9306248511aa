"""The squares of images: held in memory, or decoded each time they are asked for."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from nearfar.data.archives import EndToEnd, Stamp
from nearfar.data.labels import some
from nearfar.data.samples import insist_few_bad
from nearfar.errors import Lost, UserError
from nearfar.machine import free_memory
from nearfar.modalities.image import decode
from nearfar.modalities.image.decode import Item, Items
from nearfar.modalities.image.identity import identity
from nearfar.modalities.image.pixels import Form, Pixels, Whites
from nearfar.modalities.image.scale import Asked, Scale, Seen, scale, to_measure
from nearfar.modalities.image.sources import Opened

Progress = Callable[[int, int], None]
T = TypeVar("T")


@dataclass(slots=True)
class Known:
    """An image as it was when it was first read. digest: see `identity`; "" of one that could not be read."""

    name: str
    digest: str = ""
    stamp: Stamp = None


@dataclass(slots=True)
class Cache:
    """Squares held in memory: N x C x S x S, uint8."""

    squares: Tensor
    source: Items | np.ndarray
    source_rows: Tensor  # N, where the image of each square stands in the source
    whites: Whites = field(default_factory=dict)  # see `nearfar.modalities.image.pixels`

    @property
    def shape(self) -> torch.Size:
        return self.squares.shape[1:]

    def pixels(self, rows: Tensor) -> Tensor:
        if self.squares.is_cuda:
            return self.squares.index_select(0, rows)
        # NumPy copies rows in one thread. torch shares this out so finely that on busy cores it took 30 to 200 times
        # as long: 512 squares of 32 x 32 in 32 ms for 0.15.
        return torch.from_numpy(self.squares.numpy()[rows.numpy()])

    def of_channels(self, channels: int) -> Cache:
        """The same, gray as three equal channels, which take no room, or color as gray as Pillow makes it."""
        squares = self.squares.expand(-1, channels, -1, -1) if channels == 3 else _gray(self.squares)
        return replace(self, squares=squares)

    def original(self, row: int) -> Image.Image:
        return _original(self.source, int(self.source_rows[row]), self.whites)


@dataclass(slots=True)
class OnDemand:
    """Squares that are decoded each time they are asked for, by threads.

    known: of each image of the source, what it was when the data were opened.
    """

    source: Items
    shape: torch.Size
    workers: int
    known: list[Known]
    whites: Whites = field(default_factory=dict)  # see `nearfar.modalities.image.pixels`

    def pixels(self, rows: Tensor) -> Tensor:
        where = rows.tolist()
        squares = _colors_last(len(where), self.shape)
        view = squares.numpy()

        def fill(i: int) -> None:
            view[i], _ = decode.square(self._read(where[i]), self.shape[2], self.shape[0], self.whites)

        failed = _threaded(lambda i: _attempt(fill, i), len(where), self.workers, None)
        if lost := {i: (self.known[where[i]].name, why) for i, why in enumerate(failed) if why is not None}:
            raise Lost(lost)
        return squares

    def of_channels(self, channels: int) -> OnDemand:
        """The same, decoded as gray, 1, or color, 3."""
        return replace(self, shape=torch.Size((channels, *self.shape[1:])))

    def _read(self, row: int) -> Item:
        """An image, if it is the one that it was; only where its file may have changed are its bytes compared."""
        known, stamp = self.known[row], self.source.stamp(row)
        item = self.source.read(row)
        if stamp != known.stamp:
            if identity(item) != known.digest:
                raise UserError("its bytes have changed")
            known.stamp = stamp
        return item

    def original(self, row: int) -> Image.Image:
        return _original(self.source, row, self.whites)


def squashed(array: np.ndarray, side: int | None) -> tuple[Cache, Tensor]:
    """The squares of an array N x H x W x C, and their aspects. side: their side; by default that of equal area."""
    n, height, width, channels = array.shape
    side = side or round(math.sqrt(height * width))
    squares = torch.from_numpy(array).permute(0, 3, 1, 2)  # N x C x H x W
    if (height, width) != (side, side):
        small = torch.empty(n, channels, side, side, dtype=torch.uint8)
        for start in range(0, n, 256):
            chunk = squares[start : start + 256].float()
            chunk = F.interpolate(chunk, (side, side), mode="bicubic", antialias=True)
            small[start : start + 256] = chunk.round_().clamp_(0, 255)
        squares = small
    return Cache(squares.contiguous(), array, torch.arange(n)), torch.full((n,), width / height)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How encoded images become squares: see `nearfar.modalities.image.samples.open_images`."""

    side: int | None
    size: int
    max_bad: float
    memory: float | None
    white: Asked
    max_pixels: int | None
    workers: int
    progress: Progress | None


@dataclass(slots=True)
class Decoded:
    """Encoded images as squares. aspect: N, of all images.  bad: why an image has no square, by its position.
    digest: N, of all images, "" of a bad one."""

    store: Cache | OnDemand
    aspect: Tensor
    digest: list[str]
    bad: dict[int, str]
    notes: list[str]


def decoded(opened: Opened, how: Decoding) -> Decoded:
    """Decode every image once, even where the squares cannot be kept, so that no broken file ends a run hours later.

    Raises ValueError where too many images are bad, or they have different numbers of channels.
    """
    source, n = opened.source, len(opened.names)
    assert not isinstance(source, np.ndarray)
    with decode.quiet():
        heads, bad = _heads(source, n, how)
        if not heads:
            _check_bad(opened, bad, how.max_bad)
        side = how.side or min(round(statistics.median(head.short for head in heads.values())), 2 * how.size)
        shape = torch.Size((_channels(opened, heads), side, side))
        scaled = _scale(opened, {i: head.form for i, head in heads.items() if head.form != "bytes"}, how)
        bad |= scaled.bad
        workers = 1 if isinstance(source, EndToEnd) and side <= 64 else how.workers

        rows = [i for i in heads if i not in scaled.bad]
        needed = len(rows) * shape.numel()
        memory = free_memory() / 2 if how.memory is None else how.memory
        keep = needed <= memory
        squares = _colors_last(len(rows) if keep else 0, shape)
        view = squares.numpy()
        aspect = torch.zeros(n)
        known = [Known(name) for name in opened.names]

        def fill(j: int) -> None:
            stamp, item = source.stamp(rows[j]), source.read(rows[j])
            known[rows[j]].digest, known[rows[j]].stamp = identity(item), stamp
            if heads[rows[j]].form != "bytes":
                item = decode.numbers(item)
                assert item is not None
            pixels, aspect[rows[j]] = decode.square(item, side, shape[0], scaled.whites)
            if isinstance(item, Pixels):
                scaled.seen[rows[j]] = Seen(*item.span(), int(pixels.max()))
            if keep:
                view[j] = pixels

        results = _threaded(lambda j: _attempt(fill, j), len(rows), workers, how.progress)
    failed = {rows[j]: why for j, why in enumerate(results) if why is not None}
    bad |= failed
    _check_bad(opened, bad, how.max_bad)

    digest = [each.digest for each in known]
    notes = scaled.notes(opened.names) + _notes(opened, heads, shape[0])
    if not keep:
        notes.append(
            f"{len(rows)} images of {side} x {side} take {needed / 2**30:.1f} GiB, more than the "
            f"{memory / 2**30:.1f} GiB set aside: they are decoded batch by batch, which is slower."
        )
        return Decoded(OnDemand(source, shape, workers, known, scaled.whites), aspect, digest, bad, notes)
    kept = [j for j, row in enumerate(rows) if row not in failed]
    if failed:  # close the gaps in place: a copy of the whole might not fit
        for to, j in enumerate(kept):
            view[to] = view[j]
    store = Cache(squares[: len(kept)], source, torch.tensor([rows[j] for j in kept]), scaled.whites)
    return Decoded(store, aspect, digest, bad, notes)


def _heads(source: Items, n: int, how: Decoding) -> tuple[dict[int, decode.Head], dict[int, str]]:
    """The heads of images in order, and why others have none."""

    def head(i: int) -> decode.Head:
        item = source.stream(i)
        if isinstance(item, Item):
            return decode.head(item, how.max_pixels)
        with item as file:
            return decode.head(file, how.max_pixels)

    # Where nothing waits for a disk, short work is Python's own, and threads would only take turns at it.
    results = _threaded(lambda i: _attempt(head, i), n, 1 if isinstance(source, EndToEnd) else how.workers, None)
    heads = {i: result for i, result in enumerate(results) if not isinstance(result, str)}
    return heads, {i: result for i, result in enumerate(results) if isinstance(result, str)}


def _scale(opened: Opened, forms: dict[int, Form], how: Decoding) -> Scale:
    """The scale of all images that have more than 8 bits; of some the numbers are read once for it."""
    source, rows = opened.source, to_measure(forms, how.white)

    def span(j: int) -> tuple[float, float]:
        pixels = None if isinstance(source, np.ndarray) else decode.numbers(source.read(rows[j]))
        assert pixels is not None
        return pixels.span()

    results = _threaded(lambda j: _attempt(span, j), len(rows), how.workers, None)
    return scale(opened.given, opened.names, forms, how.white, dict(zip(rows, results, strict=True)))


def _notes(opened: Opened, heads: dict[int, decode.Head], channels: int) -> list[str]:
    notes = []
    gray = sum(head.channels == 1 for head in heads.values())
    if channels == 3 and gray:
        notes.append(f"{gray:,} of {len(heads):,} images are gray; they are read as color, like the others.")
    if several := [f"{opened.names[i]!r}: {head.frames}" for i, head in heads.items() if head.frames > 1]:
        notes.append(
            f"{len(several):,} of {len(heads):,} files hold more than one frame ({some(several)}): only the first of "
            "each is read. --frames all makes each a sample."
        )
    return notes


def _gray(squares: Tensor) -> Tensor:
    """The luma of ITU-R 601, rounded as Pillow rounds it: N x 3 x S x S -> N x 1 x S x S, uint8."""
    gray = torch.empty(len(squares), 1, *squares.shape[2:], dtype=torch.uint8, device=squares.device)
    for part, out in zip(squares.split(256), gray.split(256), strict=True):
        red, green, blue = part.int().unbind(1)
        out[:, 0] = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
    return gray


def _colors_last(n: int, shape: torch.Size) -> Tensor:
    """Room for n squares C x S x S. Small ones lie color by color, as batched views like them; large ones pixel by
    pixel, as they are decoded, and as torch's resize wants them."""
    channels, side, _ = shape
    if side <= 64:
        return torch.empty(n, *shape, dtype=torch.uint8)
    return torch.empty(n, side, side, channels, dtype=torch.uint8).permute(0, 3, 1, 2)


def _original(source: Items | np.ndarray, row: int, whites: Whites) -> Image.Image:
    return decode.image(source[row] if isinstance(source, np.ndarray) else source.read(row), whites)


def _channels(opened: Opened, heads: dict[int, decode.Head]) -> int:
    """The channels of all images: gray and color may be mixed, and nothing else."""
    first: dict[int, int] = {}
    for i, head in heads.items():
        first.setdefault(head.channels, i)
    if len(first) == 1 or first.keys() <= {1, 3}:
        return max(first)
    count = Counter(head.channels for head in heads.values())
    listed = ", ".join(f"{n} of {c} ({opened.names[first[c]]!r})" for c, n in count.most_common())
    raise UserError(
        f"The images of '{opened.given}' have different numbers of channels: {listed}. Only gray and color can be "
        "mixed: put each sort in a folder of its own, or convert them to one."
    )


def _check_bad(opened: Opened, bad: dict[int, str], max_bad: float) -> None:
    known = [(opened.names[i], bad[i]) for i in sorted(bad)]
    insist_few_bad(known, len(opened.names), max_bad, f"images of '{opened.given}'", "decoded")


def _attempt(work: Callable[[int], T], i: int) -> T | str:
    """The work's result, or why it failed."""
    try:
        return work(i)
    except MemoryError:
        raise
    except Exception as error:  # decoders of broken files raise nearly everything
        return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _threaded(work: Callable[[int], T], n: int, workers: int, progress: Progress | None) -> list[T]:
    """[work(0), ..., work(n - 1)] by threads, in runs long enough that handing them out costs nothing."""
    run = max(1, min(64, n // (4 * workers)))
    done: list[T] = []
    with ThreadPoolExecutor(max(1, min(workers, n))) as pool:
        for results in pool.map(lambda a: [work(i) for i in range(a, min(a + run, n))], range(0, n, run)):
            done += results
            if progress is not None:
                progress(len(done), n)
    return done
