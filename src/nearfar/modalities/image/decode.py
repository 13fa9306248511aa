"""From an encoded image to upright pixels on white."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from PIL import Image

from nearfar.machine import opencv
from nearfar.modalities.image import tiff


@dataclass(slots=True)
class Head:
    """What an image tells before its pixels are decoded."""

    short: int  # its short side in pixels
    channels: int  # 1 if gray, 3 if color, or as many as there are
    deep: bool = False  # whether a number has 16 bits


def head(file: BinaryIO) -> Head:
    """An image's size and kind."""
    frame = _jpeg_frame(file)
    if frame is not None and frame[0] * frame[1] <= (Image.MAX_IMAGE_PIXELS or math.inf):
        return Head(min(frame[:2]), 1 if frame[2] == 1 else 3)
    file.seek(0)
    start = file.read(26)
    file.seek(0)
    if start.startswith(_NUMPY):
        shape, dtype = _numpy_head(file)
        return Head(min(shape[:2]), shape[2], dtype.itemsize > 1 and dtype.kind in "iu")
    bits = start[24] if start.startswith(_PNG) and len(start) > 24 else 8
    if start.startswith(tiff.MARKS):
        if pages := tiff.images(file):
            raise ValueError(f"a TIFF file of {len(pages)} images under another name: let it end in .tif")
        layout = tiff.layout(file)
        bits = max(layout.bits) if layout.kind != "f" else 8
        if layout.many:
            _check_pixels(layout.width, layout.height)
            return Head(min(layout.width, layout.height), layout.samples, bits > 8)
        file.seek(0)
    with Image.open(file) as image:
        _check_size(image)
        gray = image.mode in _GRAY
        if image.mode == "P":
            palette = np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
            gray = bool((palette == palette[:, :1]).all())
        return Head(min(image.size), 1 if gray else 3, bits > 8 or image.mode.startswith("I"))


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


def image(data: bytes, white: float | None = None) -> Image.Image:
    """An image at its full size, upright, on white: mode L or RGB, of many channels the first three. white: as in
    `square`."""
    values = numbers(data, color=white is not None)
    if values is not None:
        shown = values[:, :, :3] if values.shape[2] >= 3 else values[:, :, 0]
        return Image.fromarray(_eight_bits(np.ascontiguousarray(shown), white))
    with Image.open(io.BytesIO(data)) as image:
        _check_size(image)
        plain = _plain(image, white)
        turn = _TURNS.get(_orientation(image))
        return plain if turn is None else plain.transpose(turn)


def square(data: bytes, side: int, channels: int, white: float | None = None) -> tuple[np.ndarray, float]:
    """An image squashed to C x S x S, uint8, and its width / height before.

    white: the value that becomes 255 where numbers have more than 8 bits; the highest of their type by default.
    """
    fast = _fast_jpeg(data, side, channels)
    if fast is not None:
        return fast, 1.0
    values = numbers(data, color=white is not None)
    if values is not None:
        return _squashed(_eight_bits(values, white), side, channels)
    with Image.open(io.BytesIO(data)) as image:
        _check_size(image)
        width, height = image.size
        # A JPEG can be decoded at a half, a quarter or an eighth; twice the side is kept for a good reduction.
        image.draft(None, (2 * side, 2 * side))
        plain = _plain(image, white)
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


def highest(data: bytes) -> float:
    """The largest number of an image of more than 8 bits."""
    values = numbers(data, color=True)
    if values is None:
        with Image.open(io.BytesIO(data)) as image:
            values = np.asarray(image)
    return float(values.max())


def numbers(data: bytes, *, color: bool = False) -> np.ndarray | None:
    """The numbers of an image of which Pillow would lose some: H x W x C; None where Pillow is to read it.

    A .npy file, H x W, H x W x C, or C x H x W where C is the smallest; a TIFF file of other than 1 or 3 channels;
    and with `color` 16 bits of color, of which Pillow keeps 8.
    """
    if data.startswith(_NUMPY):
        values = np.load(io.BytesIO(data), allow_pickle=False)
        shape, _ = _numpy_head(io.BytesIO(data))
        return values.transpose(1, 2, 0) if values.ndim == 3 and values.shape != shape else values.reshape(shape)
    if data.startswith(tiff.MARKS):
        layout = tiff.layout(io.BytesIO(data))
        deep = layout.photometric == 2 and max(layout.bits) == 16 and not layout.alpha
        if layout.many or (color and deep):
            _check_pixels(layout.width, layout.height)
            return tiff.read(data)
    if color and data.startswith(_PNG) and data[24:26] in (b"\x10\x02", b"\x10\x06"):  # 16 bits, RGB or RGBA
        cv2 = opencv()
        if cv2 is None:
            raise ValueError("a PNG of 16 bits of color takes OpenCV: pip install 'nearfar[fast]'")
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        return None if pixels is None else pixels[:, :, 2::-1]
    return None


def _numpy_head(file: BinaryIO) -> tuple[tuple[int, int, int], np.dtype]:
    """H x W x C, and the type."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if len(shape) not in (2, 3) or 0 in shape or dtype.kind not in "buif":
        said = " x ".join(map(str, shape))
        raise ValueError(
            f"an array of {said or 'one number'} of {dtype}; wanted: numbers, H x W, H x W x C or C x H x W"
        )
    _check_pixels(*sorted(shape)[-2:])
    a, b, c = (*shape, 1)[:3]
    return ((b, c, a) if a < min(b, c) else (a, b, c)), dtype


def _squashed(pixels: np.ndarray, side: int, channels: int) -> tuple[np.ndarray, float]:
    """H x W x C, uint8, as `square` gives it: one channel after the other, as Pillow knows none of many."""
    height, width, there = pixels.shape
    if there != channels and there != 1:
        raise ValueError(f"it has {there} channels; wanted: {channels}, as the others have")
    out = np.empty((there, side, side), np.uint8)
    for channel, plane in enumerate(np.moveaxis(pixels, 2, 0)):
        image = Image.fromarray(np.ascontiguousarray(plane))
        same = (width, height) == (side, side)
        out[channel] = np.asarray(image if same else image.resize((side, side), Image.Resampling.BICUBIC))
    return (out if there == channels else np.broadcast_to(out, (channels, side, side))), width / height


def _fast_jpeg(data: bytes, side: int, channels: int) -> np.ndarray | None:
    """A JPEG that is S x S already, by OpenCV where that is installed: Pillow's very pixels, small ones four times as
    fast. None where anything about it wants Pillow: an orientation, four colors, or an end that is cut off, which
    OpenCV would fill with gray and say nothing."""
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
"""What turns an image upright, by its EXIF orientation."""

_NUMPY, _PNG = b"\x93NUMPY", b"\x89PNG\r\n\x1a\n"
_DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_GRAY = ("1", "L", "LA", "La", *_DEEP)


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # broken EXIF data, of which Pillow raises many kinds: the image itself is well
        return 1
    return orientation if orientation in _TURNS else 1


def _plain(image: Image.Image, white: float | None) -> Image.Image:
    """The image as L or RGB, 8 bits a channel, transparency laid on white."""
    if image.mode in _DEEP:
        return Image.fromarray(_eight_bits(np.asarray(image), white))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(ground, image).convert("RGB")
    if image.mode in ("L", "RGB"):
        image.load()
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _eight_bits(deep: np.ndarray, white: float | None) -> np.ndarray:
    """Numbers of 16 bits, or floats from 0 to 1 or to 255, as uint8. white: what becomes 255, and all above."""
    if deep.dtype == np.uint8:
        return deep
    if deep.dtype == bool:
        return deep * np.uint8(255)
    low, high = deep.min(), deep.max()
    if white is not None and low >= 0:
        return (deep * (255 / white)).clip(0, 255).round().astype(np.uint8)
    if np.issubdtype(deep.dtype, np.integer) and low >= 0 and high <= 65535:
        return ((deep.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if np.issubdtype(deep.dtype, np.floating) and low >= 0 and high <= 255:
        return (deep * (255 if high <= 1 else 1)).round().astype(np.uint8)
    raise ValueError(f"gray values from {low} to {high}; wanted: 0 to 65535, or floats from 0 to 1 or to 255")


def _check_size(image: Image.Image) -> None:
    _check_pixels(image.width, image.height)


def _check_pixels(width: int, height: int) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise ValueError(f"{width} x {height} pixels, above Pillow's limit of {limit} (decompression bomb)")
