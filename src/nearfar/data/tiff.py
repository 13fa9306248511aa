"""TIFF files of many channels, which Pillow does not read: satellites, microscopes.

The tags are read here; unpacking is left to Pillow all the same, to whom the bytes are shown as one wide grey picture.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from PIL import Image

MARKS = (b"II*\0", b"MM\0*")
_VALUES = {1: "B", 3: "H", 4: "I"}
_GREY = (0, 1)  # photometric: white is zero, black is zero
_RGB = 2
_MANY_TAGS = 512


@dataclass(slots=True)
class Layout:
    """How a picture lies in its file: what its first directory says."""

    order: str  # "<" or ">"
    width: int
    height: int
    samples: int
    bits: tuple[int, ...]
    kind: str  # "u", "i" or "f"
    photometric: int
    compression: int
    predictor: int
    planes: bool  # one channel after the other
    piece: tuple[int, int]  # width and height of a strip or tile
    tiled: bool
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    alpha: bool

    @property
    def many(self) -> bool:
        """Whether Pillow would refuse the picture, or leave out a channel."""
        if self.alpha or self.photometric not in (*_GREY, _RGB):
            return False
        return self.samples > 3 or (self.samples > 1 and self.photometric in _GREY)


def layout(file: BinaryIO) -> Layout:
    """The layout of the first picture of a TIFF file; ValueError where its tags make none."""
    start = file.read(8)
    order = "<" if start[:2] == b"II" else ">"
    try:
        tags = _directory(file, order, struct.unpack(order + "I", start[4:])[0])
        width, height, samples = tags[256][0], tags[257][0], tags.get(277, (1,))[0]
        tiled = 324 in tags
        where, sizes = (324, 325) if tiled else (273, 279)
        return Layout(
            order=order,
            width=width,
            height=height,
            samples=samples,
            bits=tags.get(258, (1,)),
            kind={1: "u", 2: "i", 3: "f"}[tags.get(339, (1,))[0]],
            photometric=tags.get(262, (1,))[0],
            compression=tags.get(259, (1,))[0],
            predictor=tags.get(317, (1,))[0],
            planes=tags.get(284, (1,))[0] == 2 and samples > 1,
            piece=(tags[322][0], tags[323][0]) if tiled else (width, min(tags.get(278, (height,))[0], height)),
            tiled=tiled,
            offsets=tags[where],
            counts=tags[sizes],
            alpha=any(kind in (1, 2) for kind in tags.get(338, ())),
        )
    except (KeyError, IndexError, struct.error) as error:
        raise ValueError(f"its TIFF tags are damaged or unknown ({error!r})") from error


def read(data: bytes) -> np.ndarray:
    """The picture as numbers, H x W x C, in the type of the file.

    Raises ValueError where the numbers are not whole bytes each, or packed in a way that is not known here.
    """
    it = layout(io.BytesIO(data))
    size = it.bits[0] // 8
    if set(it.bits) - {8, 16, 32, 64} or len(set(it.bits)) > 1 or it.predictor not in (1, 2):
        raise ValueError(f"a TIFF of {it.bits} bits with predictor {it.predictor}; wanted: 8, 16 or 32 bits, 1 or 2")
    dtype = np.dtype(f"{it.order}{it.kind}{size}")
    channels, planes = (1, it.samples) if it.planes else (it.samples, 1)
    each = len(it.offsets) // planes
    if each * planes != len(it.offsets) or len(it.counts) != len(it.offsets):
        raise ValueError(f"a TIFF of {len(it.offsets)} pieces for {planes} planes; wanted as many for each")
    across = -(-it.width // it.piece[0])
    found = []
    for plane in range(planes):
        part = slice(plane * each, (plane + 1) * each)
        rows = _unpacked(data, it, part, across * it.piece[0] * channels * size)  # bytes, H x row
        values = rows.view(dtype).reshape(it.height, across, it.piece[0], channels)
        if it.predictor == 2:  # each number is the difference from that of the pixel before
            values = np.cumsum(values, axis=2, dtype=dtype.newbyteorder("="))
        found.append(values.reshape(it.height, -1, channels)[:, : it.width])
    return np.concatenate(found, axis=2).astype(dtype.newbyteorder("="), copy=False)


def _directory(file: BinaryIO, order: str, offset: int) -> dict[int, tuple[int, ...]]:
    """The whole numbers of a directory by tag; others are left out."""
    file.seek(offset)
    (count,) = struct.unpack(order + "H", file.read(2))
    if count > _MANY_TAGS:
        raise ValueError(f"a TIFF directory of {count} tags")
    entries = file.read(12 * count)
    tags = {}
    for tag, kind, n, raw in struct.iter_unpack(order + "HHI4s", entries):
        if kind not in _VALUES:
            continue
        form = f"{order}{n}{_VALUES[kind]}"
        length = struct.calcsize(form)
        if length > 4:
            file.seek(struct.unpack(order + "I", raw)[0])
            raw = file.read(length)
        tags[tag] = struct.unpack(form, raw[:length])
    return tags


def _unpacked(data: bytes, it: Layout, part: slice, row: int) -> np.ndarray:
    """The bytes of some pieces, H x `row`: the same file with another directory, of a grey picture so wide."""
    offsets, counts = it.offsets[part], it.counts[part]
    tags = {256: (row,), 257: (it.height,), 258: (8,), 259: (it.compression,), 262: (1,), 277: (1,)}
    if it.tiled:
        tags |= {322: (row * it.piece[0] // (-(-it.width // it.piece[0]) * it.piece[0]),), 323: (it.piece[1],)}
        tags |= {324: offsets, 325: counts}
    else:
        tags |= {273: offsets, 278: (it.piece[1],), 279: counts}
    at = len(data) + len(data) % 2
    after = at + 2 + 12 * len(tags) + 4
    entries, more = b"", b""
    for tag, values in sorted(tags.items()):
        written = struct.pack(f"{it.order}{len(values)}I", *values)
        if len(values) > 1:
            more, written = more + written, struct.pack(it.order + "I", after + len(more))
        entries += struct.pack(it.order + "HHI", tag, 4, len(values)) + written
    directory = struct.pack(it.order + "H", len(tags)) + entries + bytes(4) + more
    shown = data[:4] + struct.pack(it.order + "I", at) + data[8:] + bytes(len(data) % 2) + directory
    with Image.open(io.BytesIO(shown)) as image:
        return np.ascontiguousarray(np.asarray(image))
