"""TIFF files of many channels, which Pillow does not read, and of many pages: satellites, microscopes, scanners.

The tags are read here; unpacking is left to Pillow all the same, to whom the bytes are shown as one wide gray image.
A page is copied out as a file of its own: all that reads images then reads pages, and of a long film only one.
"""

from __future__ import annotations

import io
import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from PIL import Image

MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_VALUES = {1: "B", 3: "H", 4: "I", 16: "Q"}
_SHORT, _LONG = 3, 4
_KEPT = (
    *(*range(256, 260), 262, 266, 273, 274, *range(277, 280), 284, 292, 293, 317, 320, *range(322, 326)),
    *(332, 338, 339, 347, *range(529, 533)),
)
"""The tags that a page needs to be read."""
_GRAY = (0, 1)  # photometric: white is zero, black is zero
_RGB = 2
_MANY_TAGS, _MANY_BYTES = 512, 1 << 28


@dataclass(slots=True)
class Layout:
    """How an image lies in its file: what its first directory says."""

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
        """Whether Pillow would refuse the image, or leave out a channel."""
        if self.alpha or self.photometric not in (*_GRAY, _RGB):
            return False
        return self.samples > 3 or (self.samples > 1 and self.photometric in _GRAY)


def layout(file: BinaryIO) -> Layout:
    """The layout of the first image of a TIFF file; ValueError where its tags make none."""
    try:
        form, first = _begin(file)
        tags = _numbers(form, _directory(file, form, first, tuple(_VALUES))[0])
        width, height, samples = tags[256][0], tags[257][0], tags.get(277, (1,))[0]
        tiled = 324 in tags
        where, sizes = (324, 325) if tiled else (273, 279)
        return Layout(
            order=form.order,
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


def images(file: BinaryIO) -> list[tuple[int, ...]] | None:
    """The images of a file of several pages, each as the offsets of its pages; None where it is one as it stands.

    An image is a page; or as many as it has channels, where ImageJ or OME has written down that pages are channels.
    Pages that say that they are small copies (overviews, thumbnails) or masks of others are left out.
    Raises ValueError where the pages cannot all be found.
    """
    seen: set[int] = set()
    try:
        form, first = _begin(file)
        at, offsets, described, samples = first, [], "", 1
        while at:
            if at in seen:
                raise ValueError(f"what follows page {len(seen)} of it came before: it is damaged")
            seen.add(at)
            raw, after = _directory(file, form, at, (2, *_VALUES), (254, 255, 270, 277))
            if at == first and 270 in raw:
                described = raw[270][2].rstrip(b"\0").decode("utf-8", "replace")
            tags = _numbers(form, raw)
            if not tags.get(254, (0,))[0] & 0b101 and tags.get(255, (1,))[0] != 2:
                offsets.append(at)
                samples = max(samples, tags.get(277, (1,))[0])
            at = after
    except (struct.error, OSError, OverflowError) as error:
        raise ValueError(f"page {len(seen) or 1} of it cannot be found: it is cut off or damaged") from error
    offsets = offsets or [first]
    claimed = re.search(r"^images=([0-9]+)", described, re.MULTILINE) if described.startswith("ImageJ=") else None
    if claimed and int(claimed[1]) > len(seen):
        raise ValueError(
            f"it holds {claimed[1]} images by ImageJ's count and lists {len(seen)}, as ImageJ writes what is larger "
            "than 4 GiB: save it as a sequence of images, or as BigTIFF"
        )
    together = _told(described, len(offsets)) if samples == 1 else None
    pages = [(at,) for at in offsets] if together is None else [tuple(offsets[i] for i in row) for row in together]
    return None if pages == [(first,)] else pages


def extract(file: BinaryIO, pages: Sequence[int]) -> bytes:
    """A file of one image: a page of another, by its offset; or several, which must be alike, as channels of one.

    Raises ValueError where pages are not alike, or cut off.
    """
    try:
        form, _ = _begin(file)
        found = [_directory(file, form, at, tuple(_SIZES), _KEPT)[0] for at in pages]
        where, sizes = (324, 325) if 324 in found[0] else (273, 279)
        tags = {tag: entry for tag, entry in found[0].items() if tag not in (where, sizes)}
        for other in found[1:]:
            if {tag: entry for tag, entry in other.items() if tag not in (where, sizes)} != tags:
                raise ValueError("its pages are channels of one image by its description, but differ in form")
        offsets, parts, at = [], [], 8
        for page in found:
            own = _numbers(form, page)
            for start, count in zip(own[where], own[sizes], strict=True):
                file.seek(start)
                parts.append(part := file.read(count))
                if len(part) < count:
                    raise ValueError(f"the file is cut off: {len(part)} of {count} bytes of a page are there")
                offsets.append(at)
                at += count
        numbers = {tag: (_LONG, values) for tag, values in _numbers(form, tags).items() if tags[tag][0] == 16}
        if len(pages) > 1:
            channels = len(pages)
            numbers |= {277: (_SHORT, (channels,)), 284: (_SHORT, (2,))}
            numbers |= {tag: (_SHORT, _numbers(form, tags)[tag] * channels) for tag in (258, 339) if tag in tags}
        numbers |= {where: (_LONG, tuple(offsets)), sizes: (_LONG, tuple(map(len, parts)))}
        body = b"".join(parts)
        return form.head(8 + len(body) + len(body) % 2) + _packed(form, tags | _entries(form, numbers), body, 8)
    except (KeyError, struct.error) as error:
        raise ValueError(f"the tags of a page are damaged or unknown ({error!r})") from error


def read(data: bytes) -> np.ndarray:
    """The image as numbers, H x W x C, in the type of the file.

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


@dataclass(frozen=True, slots=True)
class _Form:
    """How numbers lie in a file: "<" or ">"; and whether offsets have eight bytes, as in BigTIFF."""

    order: str
    big: bool

    def head(self, first: int) -> bytes:
        """The start of a file whose first directory is there; always of the small form."""
        return (b"II*\0" if self.order == "<" else b"MM\0*") + struct.pack(self.order + "I", first)


_Entry = tuple[int, int, bytes]
"""What a directory has for a tag: the kind of its numbers, how many, and they."""


def _begin(file: BinaryIO) -> tuple[_Form, int]:
    """The form of a file, and where its first directory is."""
    file.seek(0)
    start = file.read(16)
    order = "<" if start[:2] == b"II" else ">"
    form = _Form(order, struct.unpack(order + "H", start[2:4])[0] == 43)
    return form, struct.unpack(order + ("Q" if form.big else "I"), start[8:16] if form.big else start[4:8])[0]


def _directory(
    file: BinaryIO, form: _Form, offset: int, kinds: Sequence[int], wanted: Sequence[int] = ()
) -> tuple[dict[int, _Entry], int]:
    """The entries of a directory, of some kinds and tags (all where none is named); and where the next directory is."""
    count_form, entry_form, at_form = ("Q", "HHQ8s", "Q") if form.big else ("H", "HHI4s", "I")
    file.seek(offset)
    (count,) = struct.unpack(form.order + count_form, file.read(struct.calcsize(form.order + count_form)))
    if count > _MANY_TAGS:
        raise ValueError(f"a TIFF directory of {count} tags")
    each, room = struct.calcsize(form.order + entry_form), struct.calcsize(form.order + at_form)
    entries, after = file.read(each * count), file.read(room)
    tags = {}
    for tag, kind, n, raw in struct.iter_unpack(form.order + entry_form, entries):
        if kind not in kinds or (wanted and tag not in wanted):
            continue
        length = n * _SIZES[kind]
        if length > room:
            if length > _MANY_BYTES:
                raise ValueError(f"a TIFF tag of {length} bytes")
            file.seek(struct.unpack(form.order + at_form, raw)[0])
            raw = file.read(length)
        tags[tag] = (kind, n, raw[:length])
    return tags, struct.unpack(form.order + at_form, after)[0] if len(after) == room else 0


def _numbers(form: _Form, tags: dict[int, _Entry]) -> dict[int, tuple[int, ...]]:
    """The whole numbers of a directory by tag; others are left out."""
    return {
        tag: struct.unpack(f"{form.order}{n}{_VALUES[kind]}", raw)
        for tag, (kind, n, raw) in tags.items()
        if kind in _VALUES
    }


def _entries(form: _Form, numbers: dict[int, tuple[int, tuple[int, ...]]]) -> dict[int, _Entry]:
    """The entries of whole numbers of some kind, by tag."""
    return {
        tag: (kind, len(values), struct.pack(f"{form.order}{len(values)}{_VALUES[kind]}", *values))
        for tag, (kind, values) in numbers.items()
    }


def _packed(form: _Form, tags: dict[int, _Entry], body: bytes, start: int) -> bytes:
    """`body`, which begins at `start` in the file, made even, and a directory of the small form behind it."""
    body += bytes(len(body) % 2)
    after = start + len(body) + 2 + 12 * len(tags) + 4
    entries, more = b"", b""
    for tag, (kind, n, raw) in sorted(tags.items()):
        if len(raw) > 4:
            more, raw = more + raw + bytes(len(raw) % 2), struct.pack(form.order + "I", after + len(more))
        entries += struct.pack(form.order + "HHI", tag, kind, n) + raw.ljust(4, b"\0")
    return body + struct.pack(form.order + "H", len(tags)) + entries + bytes(4) + more


def _told(described: str, pages: int) -> list[list[int]] | None:
    """The pages of each image by what ImageJ or OME has written of the channels; None where nothing is told."""
    rows: list[list[int]] = []
    if described.startswith("ImageJ="):
        channels = int((re.findall(r"^channels=([0-9]+)", described, re.MULTILINE) or ["1"])[0])
        rows = np.arange(pages).reshape(-1, channels).tolist() if channels and pages % channels == 0 else []
    used = 0
    for attributes in re.findall(r"<(?:\w+:)?Pixels\s([^>]*)>", described):
        told = dict(re.findall(r'(DimensionOrder|Size[CZT])="(XY[CZT]{3}|[0-9]+)"', attributes))
        axes = told.get("DimensionOrder", "XYCZT")[:1:-1]  # the slowest first
        sizes = [int(told.get(f"Size{axis}", "1")) for axis in axes]
        here = math.prod(sizes)
        if sorted(axes) != ["C", "T", "Z"] or here > pages - used:
            return None
        order = np.moveaxis(used + np.arange(here).reshape(sizes), axes.index("C"), 2)
        rows += order.reshape(-1, order.shape[2]).tolist()
        used += here
    return rows if sum(map(len, rows)) == pages else None


def _unpacked(data: bytes, it: Layout, part: slice, row: int) -> np.ndarray:
    """The bytes of some pieces, H x `row`: the same file with another directory, of a gray image so wide."""
    offsets, counts = it.offsets[part], it.counts[part]
    tags = {256: (row,), 257: (it.height,), 258: (8,), 259: (it.compression,), 262: (1,), 277: (1,)}
    if it.tiled:
        tags |= {322: (row * it.piece[0] // (-(-it.width // it.piece[0]) * it.piece[0]),), 323: (it.piece[1],)}
        tags |= {324: offsets, 325: counts}
    else:
        tags |= {273: offsets, 278: (it.piece[1],), 279: counts}
    form = _Form(it.order, big=False)
    entries = _entries(form, {tag: (_LONG, values) for tag, values in tags.items()})
    shown = form.head(len(data) + len(data) % 2) + _packed(form, entries, data[8:], 8)
    with Image.open(io.BytesIO(shown)) as image:
        return np.ascontiguousarray(np.asarray(image))
