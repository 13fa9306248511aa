"""From an encoded image to upright pixels on white."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import BinaryIO, Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

from nearfar.data.archives import Stamp
from nearfar.errors import UserError
from nearfar.machine import opencv
from nearfar.modalities.image import tiff
from nearfar.modalities.image.pixels import DEEP, Pixels, check_size, plain

Item = bytes | Image.Image | np.ndarray | tiff.PageImage
"""An image as a source hands it out: an encoded file, an image of Pillow's, an array (H x W x C), or pages of a TIFF
file."""


class Items(Protocol):
    """A source of images, known by position."""

    def stream(self, row: int) -> BinaryIO | Item:
        """An image for `head`."""
        ...

    def read(self, row: int) -> Item:
        """An image for `square` and `image`."""
        ...

    def stamp(self, row: int) -> Stamp:
        """What is another one once the image may have changed."""
        ...


@dataclass(slots=True)
class Head:
    """What is known of an image before its pixels are decoded."""

    short: int  # its short side in pixels
    channels: int  # 1 if gray, 3 if color, or as many as there are
    deep: bool = False  # whether a number has more than 8 bits
    animated: bool = False  # whether further frames follow, of a GIF, WebP or PNG


def head(item: BinaryIO | Item) -> Head:
    """An image's size and kind; of a file only its beginning is read."""
    if isinstance(item, np.ndarray):
        height, width, channels = item.shape
        check_size(width, height)
        return Head(min(height, width), channels, item.dtype.itemsize > 1 and item.dtype.kind in "iu")
    if isinstance(item, Image.Image):
        return _pillow_head(item, bits=8)
    if isinstance(item, tiff.PageImage):
        with item.open() as file:
            return _tiff_head(tiff.layout(file, item.pages))
    return _file_head(io.BytesIO(item) if isinstance(item, bytes) else item)


def _file_head(file: BinaryIO) -> Head:
    frame = _jpeg_frame(file)
    if frame is not None and frame[0] * frame[1] <= (Image.MAX_IMAGE_PIXELS or math.inf):
        return Head(min(frame[:2]), 1 if frame[2] == 1 else 3)
    file.seek(0)
    start = file.read(26)
    file.seek(0)
    if start.startswith(_NUMPY):
        shape, dtype = _numpy_head(file)
        return Head(min(shape[:2]), shape[2], dtype.itemsize > 1 and dtype.kind in "iu")
    if start.startswith(tiff.MARKS):
        if pages := tiff.images(file):
            raise UserError(f"a TIFF file of {len(pages)} images under another name: let it end in .tif")
        return _tiff_head(tiff.layout(file))
    with _pillow(file) as image:
        return _pillow_head(image, bits=start[24] if start.startswith(_PNG) and len(start) > 24 else 8)


def _tiff_head(layout: tiff.Layout) -> Head:
    check_size(layout.width, layout.height)
    return Head(min(layout.width, layout.height), layout.channels, layout.deep)


def _pillow_head(image: Image.Image, bits: int) -> Head:
    check_size(*image.size)
    gray = image.mode in _GRAY
    if image.mode == "P":
        palette = np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
        gray = bool((palette == palette[:, :1]).all())
    animated = image.format in _ANIMATED and bool(getattr(image, "is_animated", False))
    return Head(min(image.size), 1 if gray else 3, bits > 8 or image.mode.startswith("I"), animated)


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


def image(item: Item, white: float | None = None) -> Image.Image:
    """An image at its full size, upright, on white: mode L or RGB, of many channels the first three. white: as in
    `square`."""
    pixels = numbers(item, color=white is not None)
    if pixels is not None:
        values = pixels.eight_bits(white)
        return Image.fromarray(np.ascontiguousarray(values[:, :, :3] if values.shape[2] >= 3 else values[:, :, 0]))
    with _pillow(item) as image:
        check_size(*image.size)
        whole = plain(image, white)
        turn = _TURNS.get(_orientation(image))
        return whole if turn is None else whole.transpose(turn)


def square(item: Item, side: int, channels: int, white: float | None = None) -> tuple[np.ndarray, float]:
    """An image squashed to C x S x S, uint8, and its width / height before.

    white: the value that becomes 255 where numbers have more than 8 bits; the highest of their type by default.
    """
    fast = _fast_jpeg(item, side, channels) if isinstance(item, bytes) else None
    if fast is not None:
        return fast, 1.0
    pixels = numbers(item, color=white is not None)
    if pixels is not None:
        values = pixels.eight_bits(white)
        if values.shape[2] not in (1, 3) or channels not in (1, 3):
            return _squashed(values, side, channels)
        image = Image.fromarray(np.ascontiguousarray(values if values.shape[2] == 3 else values[:, :, 0]))
        return _fitted(image, side, channels), image.width / image.height
    with _pillow(item) as image:
        check_size(*image.size)
        width, height = image.size
        if image is not item:
            # A JPEG can be decoded at a half, a quarter or an eighth; twice the side is kept for a good reduction.
            image.draft(None, (2 * side, 2 * side))
        orientation = _orientation(image)
        if orientation >= 5:
            width, height = height, width
        return _fitted(plain(image, white), side, channels, orientation), width / height


def _fitted(image: Image.Image, side: int, channels: int, orientation: int = 1) -> np.ndarray:
    """An image of mode L or RGB as C x S x S, of 1 or 3 channels."""
    if image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BICUBIC, reducing_gap=3.0)
    if orientation in _TURNS:  # after the squash: a small square turns fast
        image = image.transpose(_TURNS[orientation])
    mode = "L" if channels == 1 else "RGB"
    pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def highest(item: Item) -> float:
    """The largest number of an image of more than 8 bits."""
    pixels = numbers(item, color=True)
    if pixels is not None:
        return float(pixels.values.max())
    with _pillow(item) as image:
        return float(np.asarray(image).max())


def numbers(item: Item, *, color: bool = False) -> Pixels | None:
    """The numbers of an image: of an array, a .npy or a TIFF file; None where Pillow is to read it.

    An array is H x W, H x W x C, or C x H x W where C is the smallest of the three.
    color: those of a PNG of 16 bits of color too, of which Pillow keeps 8.
    """
    if isinstance(item, np.ndarray):
        check_size(item.shape[1], item.shape[0])
        return Pixels(item)
    if isinstance(item, tiff.PageImage):
        with item.open() as file:
            return tiff.read(file, item.pages)
    if isinstance(item, Image.Image):
        return None
    if item.startswith(_NUMPY):
        values = np.load(io.BytesIO(item), allow_pickle=False)
        shape, _ = _numpy_head(io.BytesIO(item))
        first = values.ndim == 3 and values.shape != shape
        return Pixels(values.transpose(1, 2, 0) if first else values.reshape(shape))
    if item.startswith(tiff.MARKS):
        return tiff.read(io.BytesIO(item))
    if color and item.startswith(_PNG) and item[24:26] in (b"\x10\x02", b"\x10\x06"):  # 16 bits, RGB or RGBA
        cv2 = opencv()
        if cv2 is None:
            raise UserError("a PNG of 16 bits of color takes OpenCV: pip install 'nearfar[fast]'")
        pixels = cv2.imdecode(np.frombuffer(item, np.uint8), cv2.IMREAD_UNCHANGED)
        return None if pixels is None else Pixels(pixels[:, :, 2::-1])
    return None


def _numpy_head(file: BinaryIO) -> tuple[tuple[int, int, int], np.dtype]:
    """H x W x C, and the type."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return array_shape(shape, dtype), dtype


def array_shape(shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, int, int]:
    """H x W x C of an array that is an image: H x W, H x W x C, or C x H x W where C is the smallest of the three.

    Raises ValueError where it is none, or too large.
    """
    if len(shape) not in (2, 3) or 0 in shape or dtype.kind not in "buif":
        said = " x ".join(map(str, shape))
        raise UserError(
            f"an array of {said or 'one number'} of {dtype}; wanted: numbers, H x W, H x W x C or C x H x W"
        )
    check_size(*sorted(shape)[-2:])
    a, b, c = (*shape, 1)[:3]
    return (b, c, a) if a < min(b, c) else (a, b, c)


def _squashed(pixels: np.ndarray, side: int, channels: int) -> tuple[np.ndarray, float]:
    """H x W x C, uint8, as `square` gives it: one channel after the other, as Pillow knows none of many."""
    height, width, there = pixels.shape
    if there != channels and there != 1:
        raise UserError(f"it has {there} channels; wanted: {channels}, as the others have")
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


@contextmanager
def _pillow(item: BinaryIO | Item) -> Iterator[Image.Image]:
    """An image opened by Pillow, of an encoded file or of Pillow's own. Raises ValueError where it knows none there."""
    assert not isinstance(item, np.ndarray | tiff.PageImage)
    if isinstance(item, Image.Image):
        yield item
        return
    file = io.BytesIO(item) if isinstance(item, bytes) else item
    start = file.read(12)
    file.seek(0)
    heif = start[4:8] == b"ftyp" and start[8:12] in _HEIF
    if heif and not _with_heif():
        raise UserError("a HEIC image takes a plugin for Pillow: pip install pillow-heif")
    try:
        image = Image.open(file)
    except UnidentifiedImageError as error:
        raise UserError("not an image that Pillow knows") from error
    with image:
        yield image


@cache
def _with_heif() -> bool:
    """Let Pillow read HEIC, where the plugin is installed."""
    try:
        import pillow_heif  # pyright: ignore[reportMissingImports]
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


_HEIF = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")

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
_GRAY = ("1", "L", "LA", "La", *DEEP)
_ANIMATED = ("GIF", "WEBP", "PNG")


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # broken EXIF data, of which Pillow raises many kinds: the image itself is well
        return 1
    return orientation if orientation in _TURNS else 1


@contextmanager
def quiet() -> Iterator[None]:
    """Within: Pillow's warnings of odd metadata, in files that it reads well, are not shown; nor that of a very large
    image, which is an error here."""
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield
