"""Tiles: what pages show of samples. A tile has a face (a thumbnail, the cells of a row, an excerpt), a name, a label.

A kind of data says by `Tiles` what its samples look like; `nearfar.report` draws them and knows no kind. How a face is
drawn is the template report/templates/faces/NAME.html, and the entry NAME of `faces` in report/page.js.
"""

from __future__ import annotations

import base64
import io
import math
import re
import wave as wavfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import MISSING
from nearfar.errors import UserError

DATA_URI = re.compile(r"data:image/(png|jpeg|webp);base64,[A-Za-z0-9+/=]+")
SOUND_URI = re.compile(r"data:audio/wav;base64,[A-Za-z0-9+/=]+")
LONGEST_CELL, LONGEST_EXCERPT = 80, 240  # characters


class Face(Protocol):
    """How samples of one kind appear. `name` is the template's, and goes into the results with the rest."""

    name: ClassVar[str]

    def head(self) -> dict[str, Any]:
        """What is stored once, for all samples."""
        ...

    def each(self, index: Tensor, side: int) -> list[dict[str, Any]]:
        """What is stored of each of these samples (int64, n), for tiles that are `side` pixels wide."""
        ...

    def every(self, index: Tensor, side: int) -> dict[str, Any]:
        """The same of all these samples at once, for the map: as small as it can be."""
        ...

    def words(self, i: int) -> str:
        """A sample in words; "" where it is looked at."""
        ...

    @staticmethod
    def check_head(head: dict[str, Any]) -> None:
        """Bring what `head` gave, read from a file, into the form that templates take; ValueError where it has none."""
        ...

    @staticmethod
    def check_tile(tile: dict[str, Any], head: Mapping[str, Any]) -> None:
        """The same for an entry of `each`."""
        ...

    @staticmethod
    def check_map(content: dict[str, Any], points: int) -> None:
        """The same for what `every` gave of `points` samples."""
        ...


@dataclass(frozen=True, kw_only=True)
class Thumbnails:
    """Samples that are looked at.

    pixels: from n positions (int64) to their images (uint8, n x C x S x S).  aspect: N, width / height of the true
    images, if they were squashed to squares.
    Stored of each: "thumbnail", a data URI; of all: "sprite", one data URI, "across", thumbnails in a row of it, and
    "side".
    """

    name: ClassVar[str] = "thumbnails"
    pixels: Callable[[Tensor], Tensor]
    aspect: Tensor | None = None

    def head(self) -> dict[str, Any]:
        return {}

    def each(self, index: Tensor, side: int) -> list[dict[str, Any]]:
        return [{"thumbnail": data_uri(tile)} for tile in self._cut(index, side)] if len(index) else []

    def every(self, index: Tensor, side: int) -> dict[str, Any]:
        tiles = self._cut(index, side)  # n x C x side x side
        across = math.ceil(math.sqrt(len(tiles)))
        tiles = torch.cat([tiles, tiles.new_zeros(across**2 - len(tiles), *tiles.shape[1:])])
        sprite = tiles.unflatten(0, (across, across)).permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)
        return {"sprite": data_uri(sprite, quality=75), "across": across, "side": side}

    def words(self, i: int) -> str:
        return ""

    def _cut(self, index: Tensor, side: int) -> Tensor:
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

    @staticmethod
    def check_head(head: dict[str, Any]) -> None:
        pass

    @staticmethod
    def check_tile(tile: dict[str, Any], head: Mapping[str, Any]) -> None:
        tile["thumbnail"] = contained(tile.get("thumbnail"))

    @staticmethod
    def check_map(content: dict[str, Any], points: int) -> None:
        content["sprite"] = contained(content.get("sprite"))
        if not all(isinstance(content[key], int) and content[key] > 0 for key in ("across", "side")):
            raise UserError("`across` or `side` is not a number of thumbnails or pixels")


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Samples that are rows of named columns.

    columns: the names of those that are shown.  numbers: how many of the first are numbers.  hidden: how many more
    columns there are.  cells: from a position to what each column holds, "" where nothing is known.
    Stored once: "columns", "numbers", "hidden"; of each: "cells", a text for each column; of all: a list of these.
    """

    name: ClassVar[str] = "cells"
    columns: Sequence[str]
    numbers: int
    cells: Callable[[int], Sequence[str]]
    hidden: int = 0

    def head(self) -> dict[str, Any]:
        return {"columns": list(self.columns), "numbers": self.numbers, "hidden": self.hidden}

    def each(self, index: Tensor, side: int) -> list[dict[str, Any]]:
        return [{"cells": [_cut(cell, LONGEST_CELL) for cell in self.cells(i)]} for i in index.tolist()]

    def words(self, i: int) -> str:
        return ", ".join(_cut(cell, LONGEST_CELL) for cell in self.cells(i) if cell)

    def every(self, index: Tensor, side: int) -> dict[str, Any]:
        return {"cells": [row["cells"] for row in self.each(index, side)]}

    @staticmethod
    def check_head(head: dict[str, Any]) -> None:
        head["columns"] = [str(name) for name in head["columns"]]
        head.update(numbers=int(head.get("numbers", 0)), hidden=int(head.get("hidden", 0)))

    @staticmethod
    def check_tile(tile: dict[str, Any], head: Mapping[str, Any]) -> None:
        if len(tile["cells"]) != len(head["columns"]):
            raise UserError(f"a row has {len(tile['cells'])} cells for {len(head['columns'])} columns")
        tile["cells"] = [str(cell) for cell in tile["cells"]]

    @staticmethod
    def check_map(content: dict[str, Any], points: int) -> None:
        rows = [{"cells": cells} for cells in content["cells"]]
        for row in rows:
            Cells.check_tile(row, content)
        content["cells"] = _as_many([row["cells"] for row in rows], points)


@dataclass(frozen=True, kw_only=True)
class Excerpts:
    """Samples that are read: of each, the beginning of its text.

    text: from a position to the sample in words.
    Stored of each: "excerpt"; of all: "excerpts".
    """

    name: ClassVar[str] = "excerpts"
    text: Callable[[int], str]

    def head(self) -> dict[str, Any]:
        return {}

    def each(self, index: Tensor, side: int) -> list[dict[str, Any]]:
        return [{"excerpt": self.words(i)} for i in index.tolist()]

    def words(self, i: int) -> str:
        return _cut(" ".join(self.text(i).split()), LONGEST_EXCERPT)

    def every(self, index: Tensor, side: int) -> dict[str, Any]:
        return {"excerpts": [tile["excerpt"] for tile in self.each(index, side)]}

    @staticmethod
    def check_head(head: dict[str, Any]) -> None:
        pass

    @staticmethod
    def check_tile(tile: dict[str, Any], head: Mapping[str, Any]) -> None:
        tile["excerpt"] = str(tile["excerpt"])

    @staticmethod
    def check_map(content: dict[str, Any], points: int) -> None:
        content["excerpts"] = _as_many([str(text) for text in content["excerpts"]], points)


@dataclass(frozen=True, kw_only=True)
class Sounds(Thumbnails):
    """Samples that are looked at, as pictures such as spectrograms, and listened to.

    waves: from n positions (int64) to what is played of them: n x L, float, in [-1, 1]; as short as will do, as all of
    it goes into the page.  rate: numbers a second.
    Stored of each beside "thumbnail": "sound", a data URI.
    """

    name: ClassVar[str] = "sounds"
    waves: Callable[[Tensor], Tensor]
    rate: int

    def each(self, index: Tensor, side: int) -> list[dict[str, Any]]:
        parts = index.split(256) if len(index) else ()
        sounds = [_wav_uri(wave, self.rate) for some in parts for wave in self.waves(some)]
        return [tile | {"sound": sound} for tile, sound in zip(super().each(index, side), sounds, strict=True)]

    @staticmethod
    def check_tile(tile: dict[str, Any], head: Mapping[str, Any]) -> None:
        Thumbnails.check_tile(tile, head)
        sound = tile.get("sound")
        tile["sound"] = sound if isinstance(sound, str) and SOUND_URI.fullmatch(sound) else None


FACES: dict[str, type[Face]] = {face.name: face for face in (Thumbnails, Cells, Excerpts, Sounds)}
"""The faces that the pages can draw, by name."""


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """N samples, as pages show them.

    names: N.  label: N, int64, a position in `classes`, or MISSING.  noun, plural: what a sample of this kind is
    called.  copies: a sentence on which samples count as copies of one another, or "".
    """

    face: Face
    names: Sequence[str]
    label: Tensor
    classes: Sequence[str]
    noun: str = "sample"
    plural: str = "samples"
    copies: str = ""

    def class_name(self, i: int) -> str | None:
        return None if int(self.label[i]) == MISSING else self.classes[int(self.label[i])]

    def head(self) -> dict[str, Any]:
        """What is stored once, for all samples: "face", "noun", "plural", and what the face adds."""
        return {"face": self.face.name, "noun": self.noun, "plural": self.plural} | self.face.head()

    def each(self, index: Tensor, side: int) -> dict[int, dict[str, Any]]:
        """Of each of these samples, by its position: "name", "label" (None where missing), and what the face adds."""
        index = index.unique()
        return {
            i: {"name": self.names[i], "label": self.class_name(i)} | content
            for i, content in zip(index.tolist(), self.face.each(index, side), strict=True)
        }


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _as_many(values: list[Any], points: int) -> list[Any]:
    if len(values) != points:
        raise UserError(f"there are {len(values)} tiles for {points} points")
    return values


def contained(uri: object) -> str | None:
    """The URI, if the image is inside it: nothing else is ever shown."""
    return uri if isinstance(uri, str) and DATA_URI.fullmatch(uri) else None


def data_uri(image: Tensor, quality: int = 82) -> str:
    """An image (uint8, 1 or 3 x H x W) as a JPEG in a data URI; with a fourth channel, that of opacity, as a PNG."""
    array = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    shown = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
    return picture_uri(shown, "PNG" if array.shape[2] == 4 else "JPEG", quality)


def picture_uri(image: Image.Image, form: str, quality: int = 82) -> str:
    """An image in a data URI.  form: "JPEG" or "PNG".  quality: of a JPEG."""
    file = io.BytesIO()
    image.save(file, form, **({"quality": quality, "subsampling": 0} if form == "JPEG" else {}))
    return f"data:image/{form.lower()};base64," + base64.b64encode(file.getvalue()).decode()


def _wav_uri(wave: Tensor, rate: int) -> str:
    """A wave (L, float, in [-1, 1]) as a .wav file of 16 bits in a data URI."""
    file = io.BytesIO()
    with wavfile.open(file, "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(rate)
        written.writeframes((wave.clamp(-1, 1) * 32767).round().to(torch.int16).numpy().astype("<i2").tobytes())
    return "data:audio/wav;base64," + base64.b64encode(file.getvalue()).decode()
