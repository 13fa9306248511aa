"""Images from a folder, a list of paths, or an array, as one uint8 tensor of squares.

Every image is squashed to S x S and its true aspect kept beside it, so that a whole batch is one tensor even where
photographs vary in size; the views undo the squash when they crop. The squares live in memory, on the device if
they fit there, or are decoded batch by batch where there are too many.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from nearfar.data.archives import Parts
from nearfar.data.labels import Labels, array_labels, folder_labels, no_labels, table_labels
from nearfar.data.samples import Samples
from nearfar.machine import cores, free_memory
from nearfar.modalities.image import decode
from nearfar.modalities.image.pages import Pages, apart, grouped
from nearfar.modalities.image.sources import EndToEnd, Files, Opened, find

Progress = Callable[[int, int], None]
T = TypeVar("T")


@dataclass(slots=True, eq=False, kw_only=True)
class Images(Samples):
    """N images as `channels` x `side` x `side` squares (C x S x S) of uint8, and what is known of each.

    names: path below DATA with forward slashes, or the index as text for an array.
    C is 1 where all images are gray, else 3; any number for arrays, .npy files and TIFF files of many channels.
    aspect: N, float32, width / height of each image before the squash.
    """

    aspect: Tensor
    store: Cache | OnDemand
    rows: Tensor  # N, where each image stands in the store

    @property
    def channels(self) -> int:
        return self.store.shape[0]

    @property
    def side(self) -> int:
        return self.store.shape[2]

    @property
    def white(self) -> float | None:
        """The value that became 255 where numbers had 16 bits; None for the highest of their type."""
        return self.store.white

    @property
    def cached(self) -> bool:
        """Whether the squares are held in memory; else each call of `pixels` decodes."""
        return isinstance(self.store, Cache)

    def pixels(self, index: Tensor) -> Tensor:
        """The squares of some images: n x C x S x S, uint8, where the cache is (see `to`), else on the CPU."""
        return self.store.pixels(self.rows[index.to(self.rows.device)])

    def fetch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """What views take: the squares of some images, and their aspects, n."""
        return self.pixels(index), self.aspect[index]

    def contents(self) -> Iterator[bytes]:
        """The stored pixels of each image; its name, if images are not in memory."""
        if not self.cached:
            yield from (name.encode() for name in self.names)
            return
        for index in torch.arange(len(self)).split(512):
            yield from (image.contiguous().numpy().tobytes() for image in self.pixels(index).cpu())

    def original(self, i: int) -> Image.Image:
        """Image i at its full size, upright, on white: mode L or RGB."""
        return self.store.original(int(self.rows[i]))

    def subset(self, index: Tensor | Sequence[int]) -> Images:
        """Some of the images, in the order given. Class numbers and the cache are shared."""
        index = torch.as_tensor(index, dtype=torch.int64, device="cpu")
        which = index.tolist()
        return replace(
            self,
            names=[self.names[i] for i in which],
            label=self.label[index],
            group=self.group[index],
            attribute=self.attribute[index],
            split=[self.split[i] for i in which],
            aspect=self.aspect[index],
            rows=self.rows[index.to(self.rows.device)],
        )

    def to(self, device: torch.device | str, *, share: float = 0.4) -> Images:
        """The same images with their cache on `device`, or as they are where it takes more than `share` of the free
        memory there, or there is no cache."""
        device = torch.device(device)
        if not isinstance(self.store, Cache) or self.store.squares.device == device:
            return self
        if len(self) * self.channels * self.side**2 > share * free_memory(device):
            return self
        squares, rows = self.store.squares, self.rows.cpu()
        whole = torch.equal(rows, torch.arange(len(squares)))
        moved = Cache(
            (squares if whole else squares[self.rows]).to(device),
            self.store.source,
            self.store.source_rows[rows],
            self.store.white,
        )
        return replace(self, store=moved, rows=torch.arange(len(self), device=device))


def open_images(
    data: str | Path | np.ndarray | Tensor | tuple[Any, Any],
    *,
    labels: str | Path | Sequence | np.ndarray | Tensor | None = None,
    label_column: str = "label",
    side: int | None = None,
    size: int = 224,
    max_bad: float = 0.05,
    memory: float | None = None,
    white: float | Literal["measured"] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Images:
    """Open images for training.

    data: one of
        a folder: every image below it, at any depth, in natural order; hidden files are ignored, links followed once.
            Without images, every .npy file: H x W, H x W x C, or C x H x W where C is the smallest of the three;
        a list, .txt or .csv: one path a line, relative to the list's folder (of a .csv the column path, or the first);
        a .tar that is not compressed; a .parquet table whose rows hold encoded images (bytes, as the datasets library
        writes them too) or paths, and optional label, group, attribute, split;
        an array or tensor, uint8, N x H x W or N x H x W x C (C x H x W where only that makes sense), or a .npy file;
        a pair (array, labels);
        a .npz file with such an array as images, x or data, or with encoded images end to end as jpeg and their N + 1
        offsets; optional labels or y, names (of the classes), group, attribute, split.
        A TIFF file of several pages is as many images, named FILE#1 and so on, of one group, with the labels of the
        file and their own; a page for each channel makes one image where ImageJ or OME has written that down.
    labels: "folders" (see `folder_labels`), a table (see `table_labels`), or an array. None takes the labels that
        the data bring, else none.  label_column: the table's column.
    side: S of the stored squares. Default: an array's own; for files the median short side, at most 2 x size.
    size: the side of the views to be cut from them.
    max_bad: the share of image files that may fail to decode before this is an error; they are skipped and listed.
    memory: bytes that the cache may take; beyond, images are decoded when asked for. Default: half of what is free.
    white: the value that becomes 255 in files whose numbers have 16 bits. Default: the highest of their type, so that
        all files mean the same, whatever is in them; "measured": the highest of all that is there.
    workers: decoding threads. Default: one a core.  progress: called with (done, all) while files are decoded.

    Raises FileNotFoundError where there is nothing at `data`, ValueError where it holds no images, too many bad ones,
    labels that do not fit, or files of different numbers of channels; gray ones only are read as color beside others.
    """
    given = find(data, label_column)
    opened, of = apart(given, workers or cores())
    known = grouped(_labels(opened, labels, label_column, [given.names[i] for i in of]), of)
    notes = [*opened.notes, *known.notes]
    skipped: dict[int, str] = {}
    if isinstance(opened.source, np.ndarray):
        store, aspect = _squashed(opened.source, side)
    else:
        store, aspect, skipped = _decoded(
            opened, side, size, max_bad, memory, white, workers or cores(), progress, notes
        )
    kept = torch.tensor([i for i in range(len(opened.names)) if i not in skipped])
    images = Images(
        names=opened.names,
        label=known.label,
        classes=known.classes,
        group=known.group,
        attribute=known.attribute,
        split=known.split,
        aspect=aspect,
        store=store,
        rows=torch.arange(len(opened.names)),
        skipped=[(opened.names[i], skipped[i]) for i in sorted(skipped)],
        notes=notes,
    )
    if not skipped:
        return images
    images = images.subset(kept)
    # The cache holds the good images only; what decodes on demand still counts all files.
    return replace(images, rows=torch.arange(len(kept))) if images.cached else images


@dataclass(slots=True)
class Cache:
    """Squares held in memory: N x C x S x S, uint8."""

    squares: Tensor
    source: Files | Parts | EndToEnd | Pages | np.ndarray
    source_rows: Tensor  # N, where the image of each square stands in the source
    white: float | None = None  # see `open_images`

    @property
    def shape(self) -> torch.Size:
        return self.squares.shape[1:]

    def pixels(self, rows: Tensor) -> Tensor:
        if self.squares.is_cuda:
            return self.squares.index_select(0, rows)
        # NumPy copies rows in one thread. torch shares this out so finely that on busy cores it took 30 to 200 times
        # as long: 512 squares of 32 x 32 in 32 ms for 0.15.
        return torch.from_numpy(self.squares.numpy()[rows.numpy()])

    def original(self, row: int) -> Image.Image:
        return _original(self.source, int(self.source_rows[row]), self.white)


@dataclass(slots=True)
class OnDemand:
    """Squares that are decoded each time they are asked for, by threads."""

    source: Files | Parts | EndToEnd | Pages
    shape: torch.Size
    workers: int
    white: float | None = None  # see `open_images`

    def pixels(self, rows: Tensor) -> Tensor:
        where = rows.tolist()
        squares = _colors_last(len(where), self.shape)
        view = squares.numpy()

        def fill(i: int) -> None:
            view[i], _ = decode.square(self.source.read(where[i]), self.shape[2], self.shape[0], self.white)

        _threaded(fill, len(where), self.workers, None)
        return squares

    def original(self, row: int) -> Image.Image:
        return _original(self.source, row, self.white)


def _colors_last(n: int, shape: torch.Size) -> Tensor:
    """Room for n squares C x S x S. Small ones lie color by color, as batched views like them; large ones pixel by
    pixel, as they are decoded, and as torch's resize wants them."""
    channels, side, _ = shape
    if side <= 64:
        return torch.empty(n, *shape, dtype=torch.uint8)
    return torch.empty(n, side, side, channels, dtype=torch.uint8).permute(0, 3, 1, 2)


def _original(source: Files | Parts | EndToEnd | Pages | np.ndarray, row: int, white: float | None) -> Image.Image:
    if not isinstance(source, np.ndarray):
        return decode.image(source.read(row), white)
    image = source[row]  # H x W x C
    return Image.fromarray(np.ascontiguousarray(image[:, :, :3] if image.shape[2] >= 3 else image[:, :, 0]))


def _labels(
    opened: Opened, labels: str | Path | Sequence | np.ndarray | Tensor | None, column: str, files: list[str]
) -> Labels:
    if labels is None:
        return opened.labels or no_labels(opened.names, noun="image")
    if not isinstance(labels, str | Path):
        return array_labels(labels, len(opened.names), noun="image")
    if str(labels) != "folders":
        return table_labels(labels, opened.names, column=column, root=opened.root, files=files, noun="image")
    if opened.root is None:
        raise ValueError(f"--labels folders wants a folder of images; '{opened.given}' has no folders.")
    return folder_labels(opened.names, noun="image")


def _squashed(array: np.ndarray, side: int | None) -> tuple[Cache, Tensor]:
    """The squares of an array N x H x W x C, and their aspects."""
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


def _decoded(
    opened: Opened,
    side: int | None,
    size: int,
    max_bad: float,
    memory: float | None,
    white: float | Literal["measured"] | None,
    workers: int,
    progress: Progress | None,
    notes: list[str],
) -> tuple[Cache | OnDemand, Tensor, dict[int, str]]:
    """Decode every image once: the store, the aspect of each, and why bad ones are bad; `notes` grows.

    That is done even where the squares cannot be kept, so that no broken file ends a run in its second hour.
    """
    source, n = opened.source, len(opened.names)
    assert not isinstance(source, np.ndarray)

    def head(i: int) -> decode.Head:
        with source.stream(i) as file:
            return decode.head(file)

    # Pillow warns of odd metadata in files that it reads well; the user can do nothing about it.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # decode makes it an error
        in_memory = isinstance(source, EndToEnd)
        # Where nothing waits for a disk, short work is Python's own, and threads would only take turns at it.
        found = _threaded(lambda i: _attempt(head, i), n, 1 if in_memory else workers, None)
        bad = {i: why for i, why in enumerate(found) if isinstance(why, str)}
        heads = {i: head for i, head in enumerate(found) if not isinstance(head, str)}
        if not heads:
            _check_bad(opened, bad, max_bad)
        side = side or min(round(statistics.median(head.short for head in heads.values())), 2 * size)
        channels = _channels(opened, heads)
        deep = [i for i, head in heads.items() if head.deep]
        if white == "measured":
            peaks = _threaded(
                lambda j: _attempt(lambda i: decode.highest(source.read(i)), deep[j]), len(deep), workers, None
            )
            white = max((peak for peak in peaks if not isinstance(peak, str)), default=None)
            scale = "the highest value there is"
        else:
            scale = "the range of their type" if white is None else "as asked for"
        workers = 1 if in_memory and side <= 64 else workers

        rows = [i for i in range(n) if i not in bad]
        shape = torch.Size((channels, side, side))
        needed = len(rows) * shape.numel()
        memory = free_memory() / 2 if memory is None else memory
        keep = needed <= memory
        squares = _colors_last(len(rows) if keep else 0, shape)
        view = squares.numpy()
        aspect, brightest = torch.zeros(n), torch.zeros(n)

        def fill(j: int) -> None:
            pixels, aspect[rows[j]] = decode.square(source.read(rows[j]), side, channels, white)
            if heads[rows[j]].deep:
                brightest[rows[j]] = int(pixels.max())
            if keep:
                view[j] = pixels

        results = _threaded(lambda j: _attempt(fill, j), len(rows), workers, progress)
    failed = {rows[j]: why for j, why in enumerate(results) if why is not None}
    bad |= failed
    _check_bad(opened, bad, max_bad)

    if deep:
        notes.append(
            f"{len(deep)} of {len(heads)} images have 16 bits a channel; they are scaled to 8, 0 to "
            f"{white or 65535:,g} ({scale}) to 0 to 255."
        )
        if white is None and 0 < (most := int(brightest.max())) < 64:
            notes[-1] += f" None is above about {257 * most:,}, so they are dark: try --white {257 * most}."
    gray = sum(head.channels == 1 for head in heads.values())
    if channels == 3 and gray:
        notes.append(f"{gray} of {len(heads)} images are gray; they are read as color, like the others.")
    if not keep:
        notes.append(
            f"{len(rows)} images of {side} x {side} take {needed / 2**30:.1f} GiB, more than the "
            f"{memory / 2**30:.1f} GiB set aside: they are decoded batch by batch, which is slower."
        )
        return OnDemand(source, shape, workers, white), aspect, bad
    kept = [j for j, row in enumerate(rows) if row not in failed]
    if failed:  # close the gaps in place: a copy of the whole might not fit
        for to, j in enumerate(kept):
            view[to] = view[j]
    return Cache(squares[: len(kept)], source, torch.tensor([rows[j] for j in kept]), white), aspect, bad


def _channels(opened: Opened, heads: dict[int, decode.Head]) -> int:
    """The channels of all images: gray and color may be mixed, and nothing else."""
    first: dict[int, int] = {}
    for i, head in heads.items():
        first.setdefault(head.channels, i)
    if len(first) == 1 or first.keys() <= {1, 3}:
        return max(first)
    count = Counter(head.channels for head in heads.values())
    told = ", ".join(f"{n} of {c} ({opened.names[first[c]]!r})" for c, n in count.most_common())
    raise ValueError(
        f"The images of '{opened.given}' have different numbers of channels: {told}. Only gray and color can be "
        "mixed: put each kind in a folder of its own, or convert them to one."
    )


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


def _attempt(work: Callable[[int], T], i: int) -> T | str:
    """The work's result, or why it failed."""
    try:
        return work(i)
    except UnidentifiedImageError:
        return "not an image that Pillow knows"
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
