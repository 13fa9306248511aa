"""What a page shows of a sample: a thumbnail, or the cells of a row; and its name and label."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import MISSING

_LONGEST = 80  # characters of a cell


@dataclass(frozen=True, kw_only=True)
class Thumbnails:
    """Samples that are looked at.

    pixels: from n positions (int64) to their images (uint8, n x C x S x S).  aspect: N, width / height of the true
    images, if they were squashed to squares.
    """

    pixels: Callable[[Tensor], Tensor]
    aspect: Tensor | None = None

    def head(self) -> dict[str, Any]:
        """What is said once, for all samples."""
        return {}

    def each(self, index: Tensor, side: int) -> list[dict[str, Any]]:
        """Of each of these samples its "image", a data URI `side` pixels wide and high."""
        return [{"image": _data_uri(tile)} for tile in self._thumbnails(index, side)] if len(index) else []

    def all(self, index: Tensor, side: int) -> dict[str, Any]:
        """Of all these samples "sprite", one data URI, "across", thumbnails in a row of it, and "side"."""
        tiles = self._thumbnails(index, side)  # n x C x side x side
        across = math.ceil(math.sqrt(len(tiles)))
        tiles = torch.cat([tiles, tiles.new_zeros(across**2 - len(tiles), *tiles.shape[1:])])
        sprite = tiles.unflatten(0, (across, across)).permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)
        return {"sprite": _data_uri(sprite), "across": across, "side": side}

    def _thumbnails(self, index: Tensor, side: int) -> Tensor:
        """Square cuts from the middle of the images, in their true proportions: uint8, n x 1 or 3 x side x side."""
        tiles = []
        for some in index.split(256):
            images = self.pixels(some).cpu()  # n x C x S x S
            images = images[:, :3] if images.shape[1] >= 3 else images[:, :1]
            for i, image in zip(some.tolist(), images, strict=True):
                size = image.shape[-1]
                ratio = 1.0 if self.aspect is None else float(self.aspect[i])
                height, width = max(1, round(size * min(1, ratio))), max(1, round(size * min(1, 1 / ratio)))
                top, left = (size - height) // 2, (size - width) // 2
                cut = image[None, :, top : top + height, left : left + width].float()
                tile = F.interpolate(cut, (side, side), mode="bilinear", antialias=True, align_corners=False)
                tiles.append(tile.round().clamp(0, 255).byte())
        return torch.cat(tiles)


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Samples that are read.

    columns: their names, of those that are shown.  numbers: how many of the first are numbers.  hidden: how many more
    columns there are.  cells: from a position to what each column says of it, "" where nothing is known.
    """

    columns: Sequence[str]
    numbers: int
    cells: Callable[[int], Sequence[str]]
    hidden: int = 0

    def head(self) -> dict[str, Any]:
        """What is said once, for all samples: "columns", "numbers" and "hidden"."""
        return {"columns": list(self.columns), "numbers": self.numbers, "hidden": self.hidden}

    def each(self, index: Tensor, side: int) -> list[dict[str, Any]]:
        """Of each of these samples its "cells"."""
        return [{"cells": [_cut(cell) for cell in self.cells(i)]} for i in index.tolist()]

    def all(self, index: Tensor, side: int) -> dict[str, Any]:
        """Of all these samples "cells", a list for each."""
        return {"cells": [row["cells"] for row in self.each(index, side)]}


@dataclass(frozen=True, kw_only=True)
class Shown:
    """N samples, as a page shows them.

    look: images or rows.  names: N.  label: N, int64, a position in `classes`, or MISSING.
    """

    look: Thumbnails | Cells
    names: Sequence[str]
    label: Tensor
    classes: Sequence[str]

    def class_name(self, i: int) -> str | None:
        return None if int(self.label[i]) == MISSING else self.classes[int(self.label[i])]

    def tiles(self, index: Tensor, side: int) -> dict[int, dict[str, Any]]:
        """Of each of these samples, by its position, "name", "label", and "image" or "cells"."""
        index = index.unique()
        return {
            i: {"name": self.names[i], "label": self.class_name(i)} | looks
            for i, looks in zip(index.tolist(), self.look.each(index, side), strict=True)
        }


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _data_uri(image: Tensor) -> str:
    """An image (uint8, 1 or 3 x H x W) as a JPEG in a data URI."""
    array = image.permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(file, "JPEG", quality=82, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
