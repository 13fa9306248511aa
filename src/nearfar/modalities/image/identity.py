"""By what an image is known again: the bytes of its file, or what an image in memory holds."""

from __future__ import annotations

import numpy as np
from PIL import Image

from nearfar.data.digests import digest
from nearfar.modalities.image import decode, tiff
from nearfar.modalities.image.decode import Item


def identity(item: Item) -> str:
    """The digest of an image.

    Of an encoded image it is that of its bytes; of a page or a frame of a file, of the file's bytes and its number; of
    an array of its shape, type and numbers. An image of Pillow's of mode L or RGB is that array; any other is its mode,
    size, palette, transparency, EXIF data and pixels.
    """
    if isinstance(item, bytes):
        return digest(item)
    if isinstance(item, tiff.PageImage):
        return digest(f"{item.file_digest()} {[page.number for page in item.pages]}".encode())
    if isinstance(item, decode.Frame):
        return digest(f"{item.file_digest()} frame {item.number}".encode())
    if isinstance(item, np.ndarray):
        return digest(_head(item.shape, item.dtype.str), item.tobytes())
    assert isinstance(item, Image.Image)  # sources hand out no numbers as `Pixels`
    rest = item.mode, item.size, item.getpalette(), item.info.get("transparency"), item.info.get("exif")
    if item.mode in ("L", "RGB") and rest[2:] == (None, None, None):
        return digest(_head((item.height, item.width, len(item.getbands())), np.dtype(np.uint8).str), item.tobytes())
    return digest(repr(rest).encode(), item.tobytes())


def _head(shape: tuple[int, ...], kind: str) -> bytes:
    """What tells arrays of the same bytes apart. H x W is H x W x 1."""
    return f"{(*shape, 1)[:3]} {kind}".encode()
