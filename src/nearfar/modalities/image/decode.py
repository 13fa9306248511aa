"""From an encoded image to upright pixels on white."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import BinaryIO, Protocol

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError, features

from nearfar.data.archives import Stamp
from nearfar.errors import NotInstalled, UserError
from nearfar.machine import opencv
from nearfar.modalities.image import tiff
from nearfar.modalities.image.pixels import DEEP, Form, Pixels, Whites, check_size, form_of, plain, too_large


@dataclass(frozen=True, slots=True)
class Frame:
    """A picture of several in a file that is no TIFF. read: the file.  number: of the picture, from 0.  file_digest:
    gives that of the whole file."""

    read: Callable[[], bytes]
    number: int
    file_digest: Callable[[], str]


Item = bytes | Image.Image | np.ndarray | tiff.PageImage | Frame | Pixels
"""An image as a source hands it out: an encoded file, an image of Pillow's, an array (H x W x C), pages of a TIFF file,
a picture of several in another file; or the numbers of one of these."""


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
    form: Form = "bytes"  # of its numbers
    frames: int = 1  # how many pictures its file holds, where it is no TIFF


def head(item: BinaryIO | Item, most: int | None = None) -> Head:
    """An image's size and kind; of a file only its beginning is read.

    most: pixels that an image may have; as many as Pillow allows by default. Raises ValueError where it has more.
    """
    if isinstance(item, np.ndarray):
        height, width, channels = item.shape
        check_size(width, height, most)
        return Head(min(height, width), channels, form_of(item.dtype))
    if isinstance(item, Image.Image):
        return _pillow_head(item, most)
    if isinstance(item, tiff.PageImage):
        with item.open() as file:
            return _tiff_head(tiff.layout(file, item.pages), most)
    if isinstance(item, Frame):
        with _pillow(item) as image:
            return replace(_pillow_head(image, most), form=_MODES.get(image.mode, "bytes"), frames=1)
    assert not isinstance(item, Pixels)
    return _file_head(io.BytesIO(item) if isinstance(item, bytes) else item, most)


def _file_head(file: BinaryIO, most: int | None) -> Head:
    frame = _jpeg_frame(file)
    if frame is not None:
        check_size(frame[1], frame[0], most)
        return Head(min(frame[:2]), 1 if frame[2] == 1 else 3)
    file.seek(0)
    start = file.read(8)
    file.seek(0)
    if start.startswith(_NUMPY):
        (height, width, channels), dtype = _numpy_head(file)
        check_size(width, height, most)
        return Head(min(height, width), channels, form_of(dtype))
    if start.startswith(tiff.MARKS):
        if pages := tiff.images(file):
            raise UserError(f"a TIFF file of {len(pages)} images under another name: let it end in .tif")
        return _tiff_head(tiff.layout(file), most)
    with _pillow(file) as image:
        return _pillow_head(image, most)


def _tiff_head(layout: tiff.Layout, most: int | None) -> Head:
    check_size(layout.width, layout.height, most)
    return Head(min(layout.width, layout.height), layout.channels, layout.form)


def _pillow_head(image: Image.Image, most: int | None) -> Head:
    check_size(*image.size, most)
    gray = image.mode in _GRAY
    if image.mode == "P":
        palette = np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
        gray = bool((palette == palette[:, :1]).all())
    form, stored = _MODES.get(image.mode, "bytes"), _stored_deep(image)
    if stored is not None:
        form, gray = "deep", stored in ("L", "LA")
    return Head(min(image.size), 1 if gray else 3, form, count_frames(image))


_MODES: Mapping[str, Form] = {**dict.fromkeys(DEEP, "deep"), "I": "whole", "F": "floats"}
"""The form of the numbers of an image of Pillow's, by its mode."""


def count_frames(image: Image.Image) -> int:
    """How many pictures a file holds, as Pillow opened it."""
    return getattr(image, "n_frames", 1) if getattr(image, "is_animated", False) else 1


def frames_in(file: BinaryIO) -> int:
    """How many pictures a file holds that is no TIFF; 1 where it is no image."""
    if _jpeg_frame(file) is not None:
        return 1
    file.seek(0)
    try:
        with _pillow(file) as image:
            return 1 if image.format == "TIFF" else count_frames(image)
    except Exception:  # who decodes it will say what is wrong
        return 1


def _jpeg_frame(file: BinaryIO) -> tuple[int, int, int] | None:
    """Height, width and components of a JPEG from its frame header, ten times as fast as by Pillow; None if unclear."""
    if file.read(2) != b"\xff\xd8":
        return None
    while len(mark := file.read(4)) == 4 and mark[0] == 0xFF:
        if mark[1] == 0xE2:
            name = file.read(4)
            if name == b"MPF\0":  # further pictures follow, which Pillow can count
                return None
            file.seek(-len(name), io.SEEK_CUR)
        if 0xC0 <= mark[1] <= 0xCF and mark[1] not in (0xC4, 0xC8, 0xCC):  # a start of frame
            frame = file.read(6)  # bits, height, height, width, width, components
            height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
            return (height, width, frame[5]) if len(frame) == 6 and height * width > 0 else None
        file.seek(int.from_bytes(mark[2:], "big") - 2, io.SEEK_CUR)
    return None


def image(item: Item, whites: Whites | None = None) -> Image.Image:
    """An image at its full size, upright, on white: mode L or RGB, of many channels the first three. whites: as in
    `square`."""
    pixels = numbers(item)
    if pixels is not None:
        values = pixels.eight_bits(whites)
        return Image.fromarray(np.ascontiguousarray(values[:, :, :3] if values.shape[2] >= 3 else values[:, :, 0]))
    with _pillow(item) as image:
        whole = plain(image)
        turn = _TURNS.get(_orientation(image))
        return whole if turn is None else whole.transpose(turn)


def square(item: Item, side: int, channels: int, whites: Whites | None = None) -> tuple[np.ndarray, float]:
    """An image squashed to C x S x S, uint8, and its width / height before.

    whites: the number that becomes 255, by the form of the numbers; of others what the type, or the image itself, says.
    """
    fast = _fast_jpeg(item, side, channels) if isinstance(item, bytes) else None
    if fast is not None:
        return fast, 1.0
    pixels = numbers(item)
    if pixels is not None:
        values = pixels.eight_bits(whites)
        if values.shape[2] not in (1, 3) or channels not in (1, 3):
            return _squashed(values, side, channels)
        image = Image.fromarray(np.ascontiguousarray(values if values.shape[2] == 3 else values[:, :, 0]))
        return _fitted(image, side, channels), image.width / image.height
    with _pillow(item) as image:
        width, height = image.size
        if image is not item:
            # A JPEG can be decoded at a half, a quarter or an eighth; twice the side is kept for a good reduction.
            image.draft(None, (2 * side, 2 * side))
        orientation = _orientation(image)
        if orientation >= 5:
            width, height = height, width
        return _fitted(plain(image), side, channels, orientation), width / height


def _fitted(image: Image.Image, side: int, channels: int, orientation: int = 1) -> np.ndarray:
    """An image of mode L or RGB as C x S x S, of 1 or 3 channels."""
    if image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BICUBIC, reducing_gap=3.0)
    if orientation in _TURNS:  # after the squash: a small square turns fast
        image = image.transpose(_TURNS[orientation])
    mode = "L" if channels == 1 else "RGB"
    pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def numbers(item: Item) -> Pixels | None:
    """The numbers of an image: of an array, a .npy or a TIFF file, and wherever they have more than 8 bits; None where
    Pillow is to read it.

    An array is H x W, H x W x C, or C x H x W where C is the smallest of the three.
    """
    if isinstance(item, Pixels):
        return item
    if isinstance(item, np.ndarray):
        return Pixels(item)
    if isinstance(item, tiff.PageImage):
        with item.open() as file:
            return tiff.read(file, item.pages)
    if isinstance(item, Image.Image):
        return _deep(item)
    if isinstance(item, Frame):
        with _pillow(item) as image:
            return _deep(image)
    if item.startswith(_NUMPY):
        values = np.load(io.BytesIO(item), allow_pickle=False)
        shape, _ = _numpy_head(io.BytesIO(item))
        first = values.ndim == 3 and values.shape != shape
        return Pixels(values.transpose(1, 2, 0) if first else values.reshape(shape))
    if item.startswith(tiff.MARKS):
        return tiff.read(io.BytesIO(item))
    if (item.startswith(_PNG) and item[24:25] == b"\x10") or item.startswith((_JPEG_2000, _CODESTREAM, *_NETPBM)):
        with _pillow(item) as image:
            stored = _stored_deep(image)
            if stored is None or not isinstance(image, ImageFile.ImageFile):
                return _deep(image)
            return _deep_png(image, item, stored) if image.format == "PNG" else _deep_netpbm(image, item)
    return None


def _deep(image: Image.Image) -> Pixels | None:
    """The numbers of an image that Pillow reads with more than 8 bits a channel; None where it has 8."""
    if image.mode not in DEEP:
        return None
    values, clear = np.asarray(image), image.info.get("transparency")
    alpha = None if clear is None else np.where(values == clear, 0, 65535).astype(np.uint16)
    turn = _orientation(image)
    return Pixels(tiff.upright(values[:, :, None], turn), None, None if alpha is None else tiff.upright(alpha, turn))


def _stored_deep(image: Image.Image) -> str | None:
    """The channels of a file of more than 8 bits a channel, LA, RGB, RGBA or L, of which Pillow keeps 8, or which it
    scales; None of others."""
    args = image.tile[0].args if isinstance(image, ImageFile.ImageFile) and image.tile else None
    if image.format == "PNG" and args in ("LA;16B", "RGB;16B", "RGBA;16B"):
        return str(args).partition(";")[0]
    if image.format == "PPM" and isinstance(args, tuple) and len(args) == 2 and args[1] > 255:
        return str(args[0])
    return None


def _deep_png(image: ImageFile.ImageFile, data: bytes, channels: str) -> Pixels:
    """A PNG of 16 bits a channel. Pillow keeps the first byte of each number, or the last if told that it is first."""
    with _pillow(data) as again:
        assert isinstance(again, ImageFile.ImageFile)
        if channels == "LA":  # for which it has no such form: its four bytes are read as four channels
            again._mode = "RGBA"
        again.tile = [again.tile[0]._replace(args="RGBA" if channels == "LA" else f"{channels};16L")]
        low = np.asarray(again).astype(np.uint16)
    high, low = (low[:, :, ::2], low[:, :, 1::2]) if channels == "LA" else (np.asarray(image), low)
    values = tiff.upright(256 * high.astype(np.uint16) + low, _orientation(image))
    if channels != "RGB":
        return Pixels(values[:, :, :-1], alpha=values[:, :, -1])
    clear = image.info.get("transparency")
    alpha = None if clear is None else np.where((values == clear).all(2), 0, 65535).astype(np.uint16)
    return Pixels(values, alpha=alpha)


def _deep_netpbm(image: ImageFile.ImageFile, data: bytes) -> Pixels:
    """A PGM or PPM file of more than 8 bits, which Pillow would scale to 16, or in color to 8."""
    tile = image.tile[0]
    assert isinstance(tile.args, tuple)
    channels, top = tile.args
    shape = (image.height, image.width, 3 if channels == "RGB" else 1)
    count = int(np.prod(shape))
    rest = data[tile.offset :]
    if tile.codec_name == "ppm":
        values = np.frombuffer(rest[: 2 * min(count, len(rest) // 2)], ">u2").astype(np.uint16)
    else:
        values = np.array(re.sub(rb"#[^\r\n]*", b"", rest).split()[:count], np.float64).astype(np.uint16)
    if len(values) < count:
        raise UserError(f"the file is cut off: {len(values):,} of its {count:,} numbers are there")
    return Pixels(values.reshape(shape), top=top)


def _numpy_head(file: BinaryIO) -> tuple[tuple[int, int, int], np.dtype]:
    """H x W x C, and the type."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return array_shape(shape, dtype), dtype


def array_shape(shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, int, int]:
    """H x W x C of an array that is an image: H x W, H x W x C, or C x H x W where C is the smallest of the three.

    Raises ValueError where it is none.
    """
    if len(shape) not in (2, 3) or 0 in shape or dtype.kind not in "buif":
        said = " x ".join(map(str, shape))
        raise UserError(
            f"an array of {said or 'one number'} of {dtype}; wanted: numbers, H x W, H x W x C or C x H x W"
        )
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
    """An image opened by Pillow, of an encoded file or of Pillow's own. Raises ValueError where there is none of the
    formats that are read."""
    assert not isinstance(item, np.ndarray | tiff.PageImage | Pixels)
    if isinstance(item, Image.Image):
        yield item
        return
    if isinstance(item, Frame):
        with _pillow(item.read()) as image:
            image.seek(item.number)
            yield image
        return
    file = io.BytesIO(item) if isinstance(item, bytes) else item
    start = file.read(12)
    file.seek(0)
    if not start:
        raise UserError("the file is empty")
    brand = start[8:12] if start[4:8] == b"ftyp" else b""
    heif = brand in _HEIF and _with_heif()
    try:
        image = Image.open(file, formats=[*FORMATS, "HEIF"] if heif else FORMATS)
    except UnidentifiedImageError as error:
        if brand in _HEIF and not heif:
            raise NotInstalled("a HEIC image takes the package pillow-heif: pip install 'nearfar[heif]'") from error
        if brand in (b"avif", b"avis") and not features.check("avif"):
            raise NotInstalled("an AVIF image takes a newer Pillow: pip install --upgrade pillow") from error
        raise UserError(f"no image of a format that is read here ({', '.join(FORMATS)})") from error
    except Image.DecompressionBombError as error:  # beyond twice its limit
        pixels = re.search("[0-9]+", str(error))
        raise too_large(int(pixels[0]) if pixels else 0, Image.MAX_IMAGE_PIXELS or 0) from error
    with image:
        yield image


FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "WEBP", "AVIF", "TIFF", "PPM", "JPEG2000", "TGA")
"""What Pillow may find in a file, whatever the file is called: it knows formats besides that start other programs."""


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
_JPEG_2000, _CODESTREAM = b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"
_NETPBM = (b"P2", b"P3", b"P5", b"P6", b"Pf")
_GRAY = ("1", "L", "LA", "La", *DEEP)


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
