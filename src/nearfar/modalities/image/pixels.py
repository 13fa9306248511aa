"""Numbers of any depth, and images of any mode, as 8 bits a channel on white."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from nearfar.errors import UserError


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

    def eight_bits(self, white: float | None = None) -> np.ndarray:
        """H x W x C, uint8, transparency laid on white. white: as in `eight_bits`."""
        values = eight_bits(self.values, white, self.top)
        if self.alpha is None:
            return values
        alpha = eight_bits(self.alpha, None, self.top)[..., None]
        gray = values.shape[2] == 1
        pixels = np.concatenate([np.repeat(values, 3, 2) if gray else values, alpha], axis=2)
        size = (pixels.shape[1], pixels.shape[0])
        image = Image.frombytes("RGBa" if self.premultiplied else "RGBA", size, pixels.tobytes())
        result = np.asarray(on_white(image.convert("RGBA")))
        return result[:, :, :1] if gray else result


DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
"""Pillow's modes of more than 8 bits a channel."""


def plain(image: Image.Image, white: float | None = None) -> Image.Image:
    """A Pillow image as L or RGB, 8 bits a channel, transparency laid on white."""
    if image.mode in DEEP:
        return Image.fromarray(eight_bits(np.asarray(image), white))
    if image.has_transparency_data:
        return on_white(image.convert("RGBA"))
    if image.mode in ("L", "RGB"):
        image.load()
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def on_white(image: Image.Image) -> Image.Image:
    """An image of mode RGBA as RGB on white."""
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def eight_bits(deep: np.ndarray, white: float | None = None, top: int | None = None) -> np.ndarray:
    """Numbers as uint8: whole numbers up to 65535, or floats from 0 to 1 or to 255.

    white: what becomes 255, and all above; by default 65535, or `top` where that is given.
    Raises ValueError for numbers outside these ranges.
    """
    if deep.dtype == np.uint8:
        return deep
    if deep.dtype == bool:
        return deep * np.uint8(255)
    low, high = deep.min(), deep.max()
    white = white if white is not None else top
    if white is not None and low >= 0:
        return (deep * (255 / white)).clip(0, 255).round().astype(np.uint8)
    if np.issubdtype(deep.dtype, np.integer) and low >= 0 and high <= 65535:
        return ((deep.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if np.issubdtype(deep.dtype, np.floating) and low >= 0 and high <= 255:
        return (deep * (255 if high <= 1 else 1)).round().astype(np.uint8)
    raise UserError(f"values from {low} to {high}; wanted: 0 to 65535, or floats from 0 to 1 or to 255")


def check_size(width: int, height: int) -> None:
    """Raise ValueError where an image is larger than Pillow allows."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise UserError(f"{width} x {height} pixels, above Pillow's limit of {limit} (decompression bomb)")
