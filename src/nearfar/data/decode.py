"""From an encoded picture to upright pixels on white."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from PIL import Image

from nearfar.machine import opencv


@dataclass(slots=True)
class Head:
    """What a picture tells before its pixels are decoded."""

    short: int  # its short side in pixels
    grey: bool


def head(file: BinaryIO) -> Head:
    """A picture's size and kind."""
    frame = _jpeg_frame(file)
    if frame is not None and frame[0] * frame[1] <= (Image.MAX_IMAGE_PIXELS or math.inf):
        return Head(min(frame[:2]), frame[2] == 1)
    file.seek(0)
    with Image.open(file) as image:
        _check_size(image)
        grey = image.mode in _GREY
        if image.mode == "P":
            palette = np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
            grey = bool((palette == palette[:, :1]).all())
        return Head(min(image.size), grey)


def _jpeg_frame(file: BinaryIO) -> tuple[int, int, int] | None:
    """Height, width and components of a JPEG from its frame header, ten times as fast as by Pillow; None if unclear."""
    if file.read(2) != b"\xff\xd8":
        return None
    while len(mark := file.read(4)) == 4 and mark[0] == 0xFF:
        if 0xC0 <= mark[1] <= 0xCF and mark[1] not in (0xC4, 0xC8, 0xCC):  # a start of frame
            frame = file.read(6)  # bits, height, height, width, width, components
            height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
            return (height, width, frame[5]) if len(frame) == 6 and height * width > 0 else None
        file.seek(int.from_bytes(mark[2:], "big") - 2, io.SEEK_CUR)
    return None


def picture(data: bytes) -> Image.Image:
    """A picture at its full size, upright, on white: mode L or RGB."""
    with Image.open(io.BytesIO(data)) as image:
        _check_size(image)
        plain = _plain(image)
        turn = _TURNS.get(_orientation(image))
        return plain if turn is None else plain.transpose(turn)


def square(data: bytes, side: int, channels: int) -> tuple[np.ndarray, float]:
    """A picture squashed to C x S x S, uint8, and its width / height before."""
    fast = _fast_jpeg(data, side, channels)
    if fast is not None:
        return fast, 1.0
    with Image.open(io.BytesIO(data)) as image:
        _check_size(image)
        width, height = image.size
        # A JPEG can be decoded at a half, a quarter or an eighth; twice the side is kept for a good reduction.
        image.draft(None, (2 * side, 2 * side))
        plain = _plain(image)
        if plain.size != (side, side):
            plain = plain.resize((side, side), Image.Resampling.BICUBIC, reducing_gap=3.0)
        orientation = _orientation(image)
        if orientation in _TURNS:  # after the squash: a small square turns fast
            plain = plain.transpose(_TURNS[orientation])
        if orientation >= 5:
            width, height = height, width
        mode = "L" if channels == 1 else "RGB"
        pixels = np.asarray(plain if plain.mode == mode else plain.convert(mode))
        return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1), width / height


def _fast_jpeg(data: bytes, side: int, channels: int) -> np.ndarray | None:
    """A JPEG that is S x S already, by OpenCV where that is installed: Pillow's very pixels, small ones four times as
    fast. None where anything about it wants Pillow: an orientation, four colours, or an end that is cut off, which
    OpenCV would fill with grey and say nothing."""
    if not data.startswith(b"\xff\xd8\xff") or not data.endswith(b"\xff\xd9") or b"Exif\0" in data:
        return None
    frame = _jpeg_frame(io.BytesIO(data))
    if frame is None or frame[:2] != (side, side) or frame[2] not in (1, 3) or (frame[2] == 3 and channels == 1):
        return None
    cv2 = opencv()
    if cv2 is None:
        return None
    kind = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), kind)
    if pixels is None:
        return None
    return pixels[None] if channels == 1 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB).transpose(2, 0, 1)


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

_DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_GREY = ("1", "L", "LA", "La", *_DEEP)


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


def _eight_bits(deep: np.ndarray) -> np.ndarray:
    """Grey of 16 bits, or of floats from 0 to 1 or to 255, as uint8."""
    low, high = deep.min(), deep.max()
    if np.issubdtype(deep.dtype, np.integer) and low >= 0 and high <= 65535:
        return ((deep.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if np.issubdtype(deep.dtype, np.floating) and low >= 0 and high <= 255:
        return (deep * (255 if high <= 1 else 1)).round().astype(np.uint8)
    raise ValueError(f"grey values from {low} to {high}; wanted: 0 to 65535, or floats from 0 to 1 or to 255")


def _check_size(image: Image.Image) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise ValueError(f"{image.width} x {image.height} pixels, above Pillow's limit of {limit} (decompression bomb)")
