"""TIFF files, read by tifffile: of any depth, layout, orientation and number of channels, page by page.

Pillow decodes what JPEG compression or color spaces such as YCbCr hold, at 8 bits, and stands in where a compression
wants imagecodecs, as far as it loses nothing.
"""

from __future__ import annotations

import logging
import math
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from nearfar.errors import UserError
from nearfar.modalities.image.pixels import Form, Pixels, form_of

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""The first bytes of a TIFF file; the last two of BigTIFF."""

EXTRA = "pip install 'nearfar[tiff]'"
_MANY_TAGS = 4096

# Numbers of the TIFF 6.0 specification.
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB = 0, 1, 2, 3, 5, 6, 8
_OLD_JPEG, _JPEG = 6, 7
_ASSOCIATED, _UNASSOCIATED = 1, 2  # kinds of alpha
_REDUCED, _MASK = 0b001, 0b100  # bits of the tag NewSubfileType
_INTEGER, _FLOAT = (1, 2, 4), 3  # sample formats; 4 is "undefined", read as whole numbers


class Page(NamedTuple):
    """A page by its number in the file, from 0, and the place of its directory."""

    number: int
    offset: int


@dataclass(frozen=True, slots=True)
class PageImage:
    """An image in a TIFF file of several: one page, or several alike, which are its channels.

    file_digest: of the whole file.
    """

    open: Callable[[], BinaryIO]
    pages: tuple[Page, ...]
    file_digest: Callable[[], str] = lambda: ""


@dataclass(frozen=True, slots=True)
class Layout:
    """What the tags of an image say.

    width, height: in pixels, upright.  channels: without alpha.  form: of the numbers, as they are read.
    """

    width: int
    height: int
    channels: int
    form: Form


def layout(file: BinaryIO, pages: Sequence[Page] = ()) -> Layout:
    """The layout of the first image of a file, or of that of these pages. Raises ValueError for damaged tags."""
    with _opened(file) as tif:
        first = _page(tif, pages[0] if pages else None)
        form = _form(first)
        width, height = first.imagewidth, first.imagelength
        if form.orientation >= 5:
            width, height = height, width
        colors = form.photometric in (_PALETTE, _CMYK) and not form.many  # which are turned into 8 bits of color
        assert first.dtype is not None
        own_white = form.bits if form.bits in _ODD and form.kind == "u" else None
        numbers = "bytes" if colors else form_of(first.dtype, own_white)
        return Layout(width, height, form.channels * max(1, len(pages)), numbers)


def read(file: BinaryIO, pages: Sequence[Page] = ()) -> Pixels:
    """The first image of a file; or that of these pages, of which several are the channels of one.

    Raises ValueError where the file is damaged, cut off, too large, or of a kind that cannot be read here.
    """
    with _opened(file) as tif:
        images = [_read(tif, file, page) for page in (pages or [None])]
    if len(images) == 1:
        return images[0]
    if len({(image.values.shape, image.values.dtype, image.top) for image in images}) > 1:
        raise UserError("its pages are channels of one image by its description, but differ in form")
    return Pixels(np.concatenate([image.values for image in images], axis=2), images[0].top)


def images(file: BinaryIO) -> list[tuple[Page, ...]] | None:
    """The images of a file of several pages, each as its pages; None where the file is one image as it stands.

    An image is a page; or as many as it has channels, where ImageJ or OME has written down that pages are channels.
    Pages that say that they are small copies (overviews, thumbnails) or masks of others are left out.
    Raises ValueError where the pages cannot all be found.
    """
    with _opened(file) as tif:
        every = list(_chain(tif))
        first = tif.pages.first
        pages = [page for page, kind in every if not kind & (_REDUCED | _MASK)] or [every[0][0]]
        described, samples = first.description, first.samplesperpixel
    claimed = re.search(r"^images=([0-9]+)", described, re.MULTILINE) if described.startswith("ImageJ=") else None
    if claimed and int(claimed[1]) > len(every):
        raise UserError(
            f"it holds {claimed[1]} images by ImageJ's count and lists {len(every)}, as ImageJ writes what is larger "
            "than 4 GiB: save it as a sequence of images, or as BigTIFF"
        )
    rows = _channels(described, len(pages)) if samples == 1 else None
    result = [(page,) for page in pages] if rows is None else [tuple(pages[i] for i in row) for row in rows]
    return None if result == [(every[0][0],)] else result


@cache
def _library() -> Any:
    """tifffile, imported when first needed, as that takes a while.

    It logs oddities of files that it reads well, which Python prints where nobody has set up logging: not these.
    """
    import tifffile

    logging.getLogger("tifffile").addHandler(logging.NullHandler())
    return tifffile


@contextmanager
def _opened(file: BinaryIO) -> Iterator[TiffFile]:
    """A file, opened by tifffile. Damage raises errors of many types: within, they become ValueError or OSError."""
    try:
        file.seek(0)
        # NDPI, a dialect known by the file's ending, is read as plain TIFF.
        with _library().TiffFile(file, is_ndpi=False) as tif:
            yield tif
    except (ValueError, OSError):
        raise
    except IndexError as error:  # of the first page; to ask how many there are would go through all of a film
        raise UserError("it has no page: it is cut off or damaged") from error
    except Exception as error:
        raise UserError(f"its TIFF data are damaged or unknown ({error})") from error


def _page(tif: TiffFile, page: Page | None) -> TiffPage:
    """A page, by default the first. Raises ValueError where a tag that it needs lies beyond the end of the file.

    tifffile would leave such a tag out, and log it.
    """
    if page is None:
        result = tif.pages.first
    else:
        tif.filehandle.seek(page.offset)
        result = _library().TiffPage(tif, page.number)
    entries, _ = _directory(tif, result.offset)
    if lost := sorted({tag for tag, _, _ in entries} & _NEEDED - {tag.code for tag in result.tags}):
        raise UserError(f"the TIFF tag {lost[0]} of a page cannot be read: the file is cut off or damaged")
    return result


_NEEDED = {*range(256, 260), 262, 266, 273, 274, *range(277, 280), 284, 317, 320, *range(322, 326), 332, 338, 339}
"""The tags that say how a page is to be read."""


def _directory(tif: TiffFile, at: int) -> tuple[list[tuple[int, int, bytes]], int]:
    """The entries of a directory, each as tag, type and value or its place; and where the next directory is, or 0."""
    form, file = tif.tiff, tif.filehandle
    entry = struct.Struct(form.byteorder + ("HHQ8s" if form.tagsize == 20 else "HHI4s"))
    file.seek(at)
    (count,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
    if count > _MANY_TAGS:
        raise UserError(f"a TIFF directory of {count} tags: it is damaged")
    entries = [(tag, number_type, raw) for tag, number_type, _, raw in entry.iter_unpack(file.read(count * entry.size))]
    (after,) = struct.unpack(form.offsetformat, file.read(form.offsetsize))
    return entries, after


def _chain(tif: TiffFile) -> Iterator[tuple[Page, int]]:
    """The pages of a file, and the bits that say what each is: see `_REDUCED`, `_MASK`.

    tifffile would make an object of all tags of each, which takes ten times as long, and end quietly at a damaged one.
    """
    at, seen = tif.pages.first.offset, set()
    while at:
        if at in seen:
            raise UserError(f"what follows page {len(seen)} of it came before: it is damaged")
        seen.add(at)
        try:
            entries, after = _directory(tif, at)
        except (struct.error, OSError, OverflowError) as error:
            raise UserError(f"page {len(seen)} of it cannot be found: it is cut off or damaged") from error
        kind = 0
        for tag, number_type, raw in entries:
            if tag in (254, 255):  # NewSubfileType; SubfileType, where 2 is a small copy
                value = int.from_bytes(raw[: 2 if number_type == 3 else 4], _ENDIAN[tif.byteorder])
                kind |= value if tag == 254 else _REDUCED * (value == 2)
        yield Page(len(seen) - 1, at), kind
        at = after


_ENDIAN: dict[str, Any] = {"<": "little", ">": "big"}


@dataclass(frozen=True, slots=True)
class _Form:
    """What a page holds.

    kind: "u", "i" or "f".  channels: as they are read, without alpha.  alpha: its kind, or None.
    many: whether the channels are neither gray nor color, but all numbers that there are.
    """

    bits: int
    kind: str
    photometric: int
    channels: int
    alpha: int | None
    many: bool
    orientation: int


def _form(page: TiffPage) -> _Form:
    """Raises ValueError for complex numbers, volumes, and types that tifffile does not know."""
    bits, samples, photometric = page.bitspersample, page.samplesperpixel, int(page.photometric)
    if page.dtype is None or page.sampleformat not in (*_INTEGER, _FLOAT):
        raise UserError(f"a TIFF of {bits} bits of sample format {page.sampleformat}; wanted: whole numbers or floats")
    if page.imagedepth != 1:
        raise UserError(f"a TIFF volume, {page.imagedepth} deep; wanted: an image a page")
    if isinstance(bits, tuple):  # such as 5, 6, 5: tifffile scales each channel to the whole type
        bits = 8 * page.dtype.itemsize
    colors = {_RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3, _LAB: 3}.get(photometric, 1)
    kinds = [int(kind) for kind in page.extrasamples]
    alpha = kinds[0] if samples == colors + 1 == colors + len(kinds) and kinds[0] in (1, 2) else None
    many = samples - (alpha is not None) != colors
    if photometric == _CMYK and page.tags.valueof(332, 1) != 1:  # inks other than cyan, magenta, yellow, black
        many = True
    if many:
        channels, alpha = samples, None
    elif photometric == _PALETTE:
        channels = 1 if _gray_palette(page) else 3
    else:
        channels = 1 if colors == 1 else 3
    orientation = page.tags.valueof(274, 1)
    return _Form(
        bits=bits,
        kind=page.dtype.kind.replace("b", "u"),
        photometric=photometric,
        channels=channels,
        alpha=alpha,
        many=many,
        orientation=orientation if orientation in range(1, 9) else 1,
    )


def _read(tif: TiffFile, file: BinaryIO, where: Page | None) -> Pixels:
    page = _page(tif, where)
    form = _form(page)
    if page.compression != _OLD_JPEG:  # which keeps its data under other tags
        _insist_whole(page, tif.filehandle.size)
    # Pillow and imagecodecs round the colors of a JPEG differently: one of them is to read it, whatever is installed.
    pillows = page.compression in (_OLD_JPEG, _JPEG) or form.photometric in (_YCBCR, _LAB)
    if pillows and form.bits == 8 and not form.many:
        return _by_pillow(file, where)
    try:
        values = page.asarray(squeeze=False, maxworkers=1)  # planes x 1 x H x W x channels
    except Exception as error:
        known = page.compression == 1 or page.compression in _library().TIFF.DECOMPRESSORS
        if known and "imagecodecs" not in str(error):
            raise
        if form.bits in (1, 2, 4, 8) and not form.many:
            return _by_pillow(file, where)
        raise UserError(
            f"a TIFF of {form.bits} bits with compression {page.compression!r} takes imagecodecs: {EXTRA}"
        ) from error
    values = np.moveaxis(values[:, 0], 0, -1).reshape(page.imagelength, page.imagewidth, -1)
    return _pixels(upright(values, form.orientation), page, form)


def _pixels(values: np.ndarray, page: TiffPage, form: _Form) -> Pixels:
    """H x W x samples as light: palette looked up, inks turned into color, few bits widened to eight."""
    top = 2**form.bits - 1 if form.kind == "u" else None
    alpha = values[:, :, -1] if form.alpha is not None else None
    values = values if alpha is None else values[:, :, :-1]
    if form.photometric == _PALETTE and not form.many:
        palette = _palette(page)
        values, top = palette[np.minimum(values[:, :, 0], len(palette) - 1)][:, :, : form.channels], 255
    if form.photometric == _WHITE_IS_ZERO and top is not None:
        values = ~values if values.dtype == bool else values.dtype.type(top) - values
    if top is not None and form.bits < 8 and values.dtype == np.uint8 and form.photometric != _PALETTE:
        widened = np.round(np.arange(top + 1) * 255 / top).astype(np.uint8)
        values, alpha = widened[values], None if alpha is None else widened[alpha]
    if form.photometric == _CMYK and not form.many:
        inks = Pixels(values, top if form.bits in _ODD else None).eight_bits()
        image = Image.frombytes("CMYK", (inks.shape[1], inks.shape[0]), inks.tobytes())
        values, top = np.asarray(image.convert("RGB")), None
    return Pixels(values, top if form.bits in _ODD else None, alpha, form.alpha == _ASSOCIATED)


_ODD = (*range(9, 16), *range(17, 32))
"""Numbers of bits that fill no type."""


def _palette(page: TiffPage) -> np.ndarray:
    """The colors of a palette: K x 3, uint8."""
    colors = page.colormap
    if colors is None:
        raise UserError("a TIFF with a palette that is missing")
    return ((colors >> 8) if colors.max() > 255 else colors).T.astype(np.uint8)  # some write 8 bits where 16 are due


def _gray_palette(page: TiffPage) -> bool:
    palette = _palette(page)
    return bool((palette == palette[:, :1]).all())


def upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """H x W x C, or H x W, turned as the tag Orientation, 1 to 8, asks."""
    if orientation >= 5:
        values = values.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):  # the first column is on the right
        values = values[:, ::-1]
    if orientation in (3, 4, 7, 8):  # the first row is at the bottom
        values = values[::-1]
    return values


def _insist_whole(page: TiffPage, size: int) -> None:
    """Work out byte counts where their tag is missing. Raises ValueError where bytes, strips or tiles are missing.

    tifffile would leave what is missing black, and say nothing.
    """
    if page.is_contiguous and not page.is_tiled:
        pieces = [(page.dataoffsets[0], page.nbytes)]
    else:
        if 279 not in page.tags and 325 not in page.tags:
            page.databytecounts = _byte_counts(page, size)
        wanted = math.prod(page.chunked)
        pieces = list(zip(page.dataoffsets, page.databytecounts, strict=False))
        if len(pieces) < wanted:
            raise UserError(f"the file is damaged: {len(pieces)} of {wanted} strips or tiles of a page are listed")
    for offset, count in pieces:
        if offset + count > size:
            there = max(0, size - offset)
            raise UserError(f"the file is cut off: {there} of {count} bytes of a strip or tile are there")


def _byte_counts(page: TiffPage, size: int) -> tuple[int, ...]:
    """The bytes of each strip or tile, where no tag tells: by its size if not compressed, else all up to the end."""
    if page.compression != 1:
        return tuple(size - offset for offset in page.dataoffsets)
    wide, high = (page.tilewidth, page.tilelength) if page.is_tiled else (page.imagewidth, page.rowsperstrip)
    row = -(-wide * (page.samplesperpixel if page.planarconfig == 1 else 1) * int(page.bitspersample) // 8)
    if page.is_tiled:
        return (row * high,) * len(page.dataoffsets)
    plane = [row * min(high, page.imagelength - top) for top in range(0, page.imagelength, high)]
    return tuple(plane) * (len(page.dataoffsets) // len(plane))


def _by_pillow(file: BinaryIO, where: Page | None) -> Pixels:
    """A page as Pillow decodes it, at 8 bits."""
    file.seek(0)
    with Image.open(file, formats=["TIFF"]) as image:
        image.seek(0 if where is None else where.number)
        image = ImageOps.exif_transpose(image)
        mode = "LA" if image.mode in ("LA", "La") else "RGBA" if image.has_transparency_data else None
        if mode is None:
            mode = "L" if image.mode in ("1", "L") else "RGB"
            if image.mode == "P" and bool((_colors(image) == _colors(image)[:, :1]).all()):
                mode = "L"
        values = np.array(image.convert(mode)).reshape(image.height, image.width, -1)
    return Pixels(values[:, :, :-1], alpha=values[:, :, -1]) if mode in ("LA", "RGBA") else Pixels(values)


def _colors(image: Image.Image) -> np.ndarray:
    return np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)


def _channels(described: str, pages: int) -> list[list[int]] | None:
    """The pages of each image by what ImageJ or OME has written of the channels; None where nothing is written."""
    rows: list[list[int]] = []
    if described.startswith("ImageJ="):
        channels = int((re.findall(r"^channels=([0-9]+)", described, re.MULTILINE) or ["1"])[0])
        rows = np.arange(pages).reshape(-1, channels).tolist() if channels and pages % channels == 0 else []
    used = 0
    for attributes in re.findall(r"<(?:\w+:)?Pixels\s([^>]*)>", described):
        said = dict(re.findall(r'(DimensionOrder|Size[CZT])="(XY[CZT]{3}|[0-9]+)"', attributes))
        axes = said.get("DimensionOrder", "XYCZT")[:1:-1]  # the slowest first
        sizes = [int(said.get(f"Size{axis}", "1")) for axis in axes]
        here = math.prod(sizes)
        if sorted(axes) != ["C", "T", "Z"] or here > pages - used:
            return None
        order = np.moveaxis(used + np.arange(here).reshape(sizes), axes.index("C"), 2)
        rows += order.reshape(-1, order.shape[2]).tolist()
        used += here
    return rows if sum(map(len, rows)) == pages else None
