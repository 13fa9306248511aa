"""Images as samples: every one a square of uint8, whatever its shape.

Every image is squashed to S x S and its true aspect kept beside it, so that a whole batch is one tensor even where
photographs vary in size; the views undo the squash when they crop. The squares live in memory, on the device if
they fit there, or are decoded batch by batch where there are too many (`store.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nearfar.data.labels import LabelColumn, Labels, given_labels, no_labels
from nearfar.data.samples import Samples
from nearfar.errors import UserError
from nearfar.machine import cores, free_memory
from nearfar.modalities.image.identity import identity
from nearfar.modalities.image.pages import apart, grouped
from nearfar.modalities.image.pixels import Whites
from nearfar.modalities.image.scale import Asked, unused
from nearfar.modalities.image.sources import Opened, find
from nearfar.modalities.image.store import Cache, Decoding, OnDemand, Progress, decoded, squashed
from nearfar.ranges import NonNegativeFloat, PositiveInt, UnitInterval, checked


@dataclass(slots=True, eq=False, kw_only=True)
class Images(Samples):
    """N images as `channels` x `side` x `side` squares (C x S x S) of uint8, and what is known of each.

    names: path below DATA with forward slashes, or the index as text for an array.
    C is 1 where all images are gray, else 3; any number for arrays, .npy files and TIFF files of many channels.
    aspect: N, float32, width / height of each image before the squash.
    """

    PER_SAMPLE = ("aspect", "rows")
    FINITE = True  # pixels are whole numbers

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
    def whites(self) -> Whites:
        """The number that became 255, by the form of numbers, as far as it is not the highest of their type."""
        return self.store.whites

    @property
    def cached(self) -> bool:
        """Whether the squares are held in memory; else each call of `pixels` decodes."""
        return isinstance(self.store, Cache)

    def pixels(self, index: Tensor) -> Tensor:
        """The squares of some images: n x C x S x S, uint8, where the cache is (see `to`), else on the CPU.

        Raises Lost where images that are decoded anew cannot be read any more, or are others than they were.
        """
        return self.store.pixels(self.rows[index.to(self.rows.device)])

    def fetch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """What views take: the squares of some images, and their aspects, n."""
        return self.pixels(index), self.aspect[index]

    def original(self, i: int) -> Image.Image:
        """Image i at its full size, upright, on white: mode L or RGB."""
        return self.store.original(int(self.rows[i]))

    def of_channels(self, channels: int) -> Images:
        """The same images, gray ones as color or color ones as gray, with a note; or these, where they have so many.

        Raises ValueError where they have other numbers of channels.
        """
        if self.channels == channels:
            return self
        if {self.channels, channels} != {1, 3}:
            raise UserError(
                f"images of {channels} channel(s) are wanted, and these have {self.channels}. Only gray (1) and color "
                "(3) can stand for each other: convert them first"
            )
        they = "gray; they are read as color" if channels == 3 else "in color; they are read as gray"
        note = f"The {len(self):,} images are {they}, as the encoder takes them."
        return replace(self, store=self.store.of_channels(channels), notes=[*self.notes, note])

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
            self.store.whites,
        )
        return replace(self, store=moved, rows=torch.arange(len(self), device=device))


@checked
def open_images(
    data: Any,
    *,
    labels: str | Path | Sequence | np.ndarray | Tensor | None = None,
    label_column: str | LabelColumn = "",
    side: PositiveInt | None = None,
    size: PositiveInt = 224,
    max_bad: UnitInterval = 0.05,
    memory: NonNegativeFloat | None = None,
    white: Asked = None,
    frames: Literal["auto", "all", "first"] = "auto",
    max_pixels: PositiveInt | None = None,
    workers: PositiveInt | None = None,
    progress: Progress | None = None,
    keep: Sequence[str] = (),
) -> Images:
    """Open images for training.

    data: one of
        a folder: every image below it, at any depth, in natural order; hidden files are ignored, links followed once.
            Without images, every .npy file: H x W, H x W x C, or C x H x W where C is the smallest of the three;
        a list, .txt or .csv: one path a line, relative to the list's folder (of a .csv the first column, or path, with
            optional label, group, attribute, split);
        a .tar that is not compressed; a .parquet table whose rows hold encoded images (bytes, as the datasets library
        writes them too) or paths, and optional label, group, attribute, split;
        an array or tensor, N x H x W or N x H x W x C (C x H x W where only that makes sense), or a .npy file;
        a list of paths, of PIL images, or of arrays or tensors, of any sizes: arrays as .npy files above, tensors
            C x H x W;
        a torch Dataset of such images or of (image, label): one without `targets` is gone through once more for them;
        a datasets.Dataset with a column of images, and optional label, group, attribute, split;
        a pair (images, labels) of any of these;
        a .npz file with such an array as images, x or data, or with encoded images end to end as jpeg or png and
        their N + 1 offsets; optional labels or y, names (of the classes), group, attribute, split.
        A TIFF file of several pages is as many images, named FILE#1 and so on, of one group, with the labels of the
        file and their own; a page for each channel makes one image where ImageJ or OME has written that down.
        Formats of files: JPEG, PNG, GIF, BMP, WebP, AVIF, TIFF, PNM, JPEG 2000, TGA, .npy, and with pillow-heif HEIC,
        whatever the files are called; no other decoder of Pillow's is started.
    labels: "folders" (see `folder_labels`), a table (see `table_labels`), or an array. None takes the labels that
        the data bring, else none.  label_column: the column of that table, or else of the data, or the name of an array
        in a .npz file; it must be there, if it is another than label.
    side: S of the stored squares. Default: an array's own; for files the median short side, at most 2 x size.
    size: the side of the views to be cut from them.
    max_bad: the share of image files that may fail to decode before this is an error; they are skipped and listed.
        The same share may be lost during training, together with these.
    memory: bytes that the cache may take; beyond, images are decoded when asked for. Default: half of what is free.
    white: the number that becomes 255 in images of more than 8 bits a number, of floats, and of other whole numbers;
        "measured": the highest of all that is there. Default: of 16 bits 65535, so that all files mean the same,
        whatever is in them; of floats 1 or 255, of other whole numbers 255 or 65535, decided once by all images. Those
        that fit neither count as bad. What `Images.whites` gave for other data is also taken: their scale holds.
    frames: of files of several pictures all, or the first; "auto": all pages of a TIFF, the first frame of others.
    max_pixels: of an image; default: Pillow's limit, which is raised for the whole process where this is above it.
    workers: decoding threads. Default: one a core.  progress: called with (done, all) while files are decoded.
    keep: words that are labels, though they usually say that nothing is known.

    Raises FileNotFoundError where there is nothing at `data`, TypeError where it is nothing of these, ValueError where
    it holds no images, too many bad ones, labels that do not fit, no such column, or images of different numbers of
    channels; gray ones only are read as color beside others.
    """
    if max_pixels and max_pixels > (Image.MAX_IMAGE_PIXELS or math.inf):
        Image.MAX_IMAGE_PIXELS = max_pixels  # Pillow knows no limit of a single call
    column = LabelColumn.of(label_column)
    given = find(data, column if labels is None else LabelColumn(column.name), keep)
    opened, of = apart(given, workers or cores(), frames)
    known = grouped(_labels(opened, labels, column, [given.names[i] for i in of], keep), of)
    notes = [*opened.notes, *known.notes]
    skipped: dict[int, str] = {}
    if isinstance(opened.source, np.ndarray):
        store, aspect = squashed(opened.source, side)
        digest = [identity(row) for row in opened.source]
        notes += unused(white, len(opened.names))
    else:
        how = Decoding(
            side=side,
            size=size,
            max_bad=max_bad,
            memory=memory,
            white=white,
            max_pixels=max_pixels,
            workers=workers or cores(),
            progress=progress,
        )
        result = decoded(opened, how)
        store, aspect, digest, skipped = result.store, result.aspect, result.digest, result.bad
        notes += result.notes
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
        digest=digest,
        max_bad=None if isinstance(opened.source, np.ndarray) else max_bad,
        label_column=column.name,
    )
    if not skipped:
        return images
    images = images.subset(kept)
    # The cache holds the good images only; what decodes on demand still counts all files.
    return replace(images, rows=torch.arange(len(kept))) if images.cached else images


def _labels(
    opened: Opened,
    labels: str | Path | Sequence | np.ndarray | Tensor | None,
    column: LabelColumn,
    files: list[str],
    keep: Sequence[str],
) -> Labels:
    own = opened.labels or no_labels(opened.names, noun="image")
    if labels is None:
        return own
    if isinstance(labels, str | Path) and str(labels) == "folders" and opened.root is None:
        raise UserError(f"--labels folders wants a folder of images; '{opened.given}' has no folders.")
    known = given_labels(labels, opened.names, column=column, root=opened.root, files=files, noun="image", keep=keep)
    return known.beside(own.group, own.attribute, own.split)
