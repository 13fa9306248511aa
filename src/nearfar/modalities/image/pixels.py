"""Numbers of any depth, and images of any mode, as 8 bits a channel on white."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from nearfar.errors import UserError

Form = Literal["bytes", "deep", "whole", "floats"]
"""What the numbers of an image are: `bytes` of 8 bits or fewer; `deep`, of 9 to 16 bits, or with a white of their own;
`whole`, other whole numbers; `floats`. The type of the last two does not say which number is white."""

Whites = Mapping[str, float]
"""The number that becomes 255, by form; of a form that is not there, what the type or the numbers say."""

SLACK = 0.25
"""How far floats may leave 0 to 1, or 0 to 255, in parts of that: resizing by cubic curves goes beyond by as much."""

FAINT = 16
"""Where no float of an image is above it, 0 to 255 is no likely range."""


@dataclass(slots=True, eq=False)
class Pixels:
    """An upright image as the numbers of its file.

    values: H x W x C, where 0 is black.
    top: the value that is white, where that is not the highest of the type: 4095 of 12 bits held in 16.
    alpha: H x W, of the same scale, where the image is transparent.
    premultiplied: whether the values were multiplied by alpha.
    """

    values: np.ndarray
    top: int | None = None
    alpha: np.ndarray | None = None
    premultiplied: bool = False

    def span(self) -> tuple[float, float]:
        """The lowest and the highest number. Raises ValueError where one is NaN or infinite."""
        low, high = float(self.values.min()), float(self.values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            bad = self.values.size - int(np.isfinite(self.values).sum())
            raise UserError(f"{bad:,} of its {self.values.size:,} numbers are NaN or infinite")
        return low, high

    def eight_bits(self, whites: Whites | None = None) -> np.ndarray:
        """H x W x C, uint8, transparency laid on white.

        Raises ValueError for NaN, for infinite numbers, and where neither `whites` nor the numbers say what is white.
        """
        values = _scaled(self.values, self._white(whites or {}))
        if self.alpha is None:
            return values
        alpha = _scaled(self.alpha, self._opaque(self.alpha))[..., None]
        gray = values.shape[2] == 1
        pixels = np.concatenate([np.repeat(values, 3, 2) if gray else values, alpha], axis=2)
        size = (pixels.shape[1], pixels.shape[0])
        image = Image.frombytes("RGBa" if self.premultiplied else "RGBA", size, pixels.tobytes())
        result = np.asarray(on_white(image.convert("RGBA")))
        return result[:, :, :1] if gray else result

    def _white(self, whites: Whites) -> float:
        form = form_of(self.values.dtype, self.top)
        if form == "bytes":
            return 255
        span = self.span()
        if form in whites:
            return whites[form]
        if form == "deep":
            return self.top or 65535
        if why := unclear(form, *span):
            raise UserError(why)
        return likely_white(form, [span])

    def _opaque(self, alpha: np.ndarray) -> float:
        if alpha.dtype.kind == "f":
            return 1 if alpha.max() <= 1 else 255
        return 1 if alpha.dtype == bool else self.top or np.iinfo(alpha.dtype).max


def form_of(dtype: np.dtype, top: int | None = None) -> Form:
    """The form of numbers of that type."""
    if dtype.kind == "f":
        return "floats"
    if dtype in (np.dtype(bool), np.dtype(np.uint8)):
        return "bytes"
    return "deep" if top is not None or dtype == np.uint16 else "whole"


def unclear(form: str, low: float, high: float) -> str:
    """Why numbers of an image, `whole` or `floats`, do not show what is black and white in it; "" where they do."""
    wanted = "0 to 1, or 0 to 255" if form == "floats" else "0 to 65535"
    if form == "whole" and low >= 0 and high <= 65535:
        return ""
    if form == "floats":
        if low >= -SLACK and high <= 1 + SLACK:
            return ""
        if low >= -255 * SLACK and FAINT <= high <= 255 * (1 + SLACK):
            return ""
    remedy = "map them there first, or say which number is white, as in --white 4095"
    if low < 0:
        remedy += ", and numbers below 0 become black"
    return f"{'floats' if form == 'floats' else 'numbers'} from {low:g} to {high:g}; wanted: {wanted}: {remedy}"


def likely_white(form: str, spans: Iterable[tuple[float, float]]) -> float:
    """What is white in images, `whole` or `floats`, whose numbers are in these ranges, none of them unclear."""
    highest = max(high for _, high in spans)
    if form == "floats":
        return 1 if highest <= 1 + SLACK else 255
    return 255 if highest <= 255 else 65535


def _scaled(values: np.ndarray, white: float) -> np.ndarray:
    """Numbers as uint8: 0 and all below to 0, `white` and all above to 255."""
    if values.dtype == bool:
        return values * np.uint8(255)
    if values.dtype == np.uint8 and white == 255:
        return values
    exact = np.float32 if values.dtype.itemsize <= 2 else np.float64
    return np.multiply(values, 255 / white, dtype=exact).clip(0, 255).round().astype(np.uint8)


DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
"""Pillow's modes of more than 8 bits a channel."""


def plain(image: Image.Image) -> Image.Image:
    """A Pillow image of 8 bits as L or RGB, transparency laid on white."""
    if image.has_transparency_data:
        return on_white(image.convert("RGBA"))
    if image.mode in ("L", "RGB"):
        image.load()
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def on_white(image: Image.Image) -> Image.Image:
    """An image of mode RGBA as RGB on white."""
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def check_size(width: int, height: int, most: int | None = None) -> None:
    """Raise ValueError where an image has more pixels than `most`, or than Pillow allows."""
    limit = most or Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise too_large(width * height, limit, f"{width} x {height} = ")


def too_large(pixels: int, limit: int, shape: str = "") -> UserError:
    """The error of an image of more pixels than are read without being asked for."""
    return UserError(
        f"{shape}{pixels:,} pixels, above the limit of {limit:,} that keeps a tiny file from filling the memory "
        f"(decompression bomb): --max-pixels {pixels} reads it"
    )
