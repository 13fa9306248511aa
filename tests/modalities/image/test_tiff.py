from __future__ import annotations

import io
import logging
import struct
import subprocess
import sys
import zlib
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageOps

from nearfar.modalities.image import decode, tiff
from nearfar.modalities.image.samples import open_images

from .images import noise


def written(
    values: np.ndarray,
    *,
    order: str = "<",
    planes: bool = False,
    piece: tuple[int, int] | None = None,
    deflate: bool = False,
    predictor: int = 1,
    extra: int = 0,
    photometric: int = 1,
    rows: int = 5,
) -> bytes:
    """A TIFF file of an array H x W x C, written by hand: in strips of so many rows, or in tiles of `piece`."""
    height, width, channels = values.shape
    values = values.astype(values.dtype.newbyteorder(order))
    step = piece or (width, rows)
    packed = []
    for plane in np.moveaxis(values, 2, 0)[..., None] if planes else [values]:
        for top in range(0, height, step[1]):
            for left in range(0, width, step[0]):
                part = plane[top : top + step[1], left : left + step[0]]
                if piece:
                    part = np.pad(part, [(0, step[1] - part.shape[0]), (0, step[0] - part.shape[1]), (0, 0)])
                if predictor == 2:
                    part = np.diff(part, axis=1, prepend=np.zeros_like(part[:, :1])).astype(part.dtype)
                packed.append(zlib.compress(part.tobytes()) if deflate else part.tobytes())
    starts = np.cumsum([8, *map(len, packed)])
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    tags: dict[int, list[int]] = {256: [width], 257: [height], 258: [8 * values.itemsize] * channels}
    tags |= {259: [8 if deflate else 1], 262: [photometric], 277: [channels], 284: [2 if planes else 1]}
    tags |= {317: [predictor], 338: [extra], 339: [kind] * channels}
    offsets, counts = starts[:-1].tolist(), [len(part) for part in packed]
    tags |= {322: [step[0]], 323: [step[1]], 324: offsets, 325: counts} if piece else {}
    tags |= {} if piece else {273: offsets, 278: [rows], 279: counts}
    at = int(starts[-1])
    after, entries, more = at + 2 + 12 * len(tags) + 4, b"", b""
    for tag, numbers in sorted(tags.items()):
        short = tag in (258, 259, 262, 277, 284, 317, 338, 339)
        raw = struct.pack(f"{order}{len(numbers)}{'H' if short else 'I'}", *numbers)
        if len(raw) > 4:
            more, raw = more + raw, struct.pack(order + "I", after + len(more))
        entries += struct.pack(order + "HHI", tag, 3 if short else 4, len(numbers)) + raw.ljust(4, b"\0")
    mark = b"II*\0" if order == "<" else b"MM\0*"
    head = mark + struct.pack(order + "I", at)
    return head + b"".join(packed) + struct.pack(order + "H", len(tags)) + entries + bytes(4) + more


def random(*shape: int, dtype: str = "uint16") -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


def read(data: bytes, *pages: tiff.Page) -> np.ndarray:
    return tiff.read(io.BytesIO(data), pages).values


def head(data: bytes) -> tuple[int, int, int, str]:
    layout = tiff.layout(io.BytesIO(data))
    return layout.width, layout.height, layout.channels, layout.form


def by_tifffile(values: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, metadata=None, **options)
    return file.getvalue()


def several(pages: list[Image.Image], **options: Any) -> bytes:
    file = io.BytesIO()
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:], **options)
    return file.getvalue()


def pages_of(mode: str, n: int = 4) -> list[Image.Image]:
    if mode == "I;16":
        return [Image.fromarray(random(23, 31) // (i + 1)) for i in range(n)]
    if mode == "F":
        return [Image.fromarray(random(23, 31).astype(np.float32) / 65535) for _ in range(n)]
    if mode == "1":
        return [noise(23, 31, seed=i, mode="L").convert("1") for i in range(n)]
    if mode == "P":
        return [noise(23, 31, seed=i).quantize(16) for i in range(n)]
    return [noise(23 + i, 31, seed=i, mode=mode) for i in range(n)]  # pages may differ in size


def set_tag(data: bytes, tag: int, value: int) -> bytes:
    """A little-endian file whose first directory says something else in a tag of one number."""
    (at,) = struct.unpack("<I", data[4:8])
    (count,) = struct.unpack("<H", data[at : at + 2])
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        if struct.unpack("<H", data[entry : entry + 2])[0] == tag:
            return data[: entry + 8] + struct.pack("<I", value) + data[entry + 12 :]
    raise AssertionError(f"the file has no tag {tag}")


def without_tag(data: bytes, tag: int) -> bytes:
    """A little-endian file in whose first directory a tag is called something that nobody knows."""
    (at,) = struct.unpack("<I", data[4:8])
    (count,) = struct.unpack("<H", data[at : at + 2])
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        if struct.unpack("<H", data[entry : entry + 2])[0] == tag:
            return data[:entry] + struct.pack("<H", 65000) + data[entry + 2 :]
    raise AssertionError(f"the file has no tag {tag}")


@pytest.mark.parametrize(("order", "dtype"), [("<", "uint8"), (">", "uint16")])
@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("piece", [None, (16, 16)])
@pytest.mark.parametrize(("deflate", "predictor"), [(False, 1), (True, 1), (True, 2)])
def test_what_was_written_is_read(order, planes, piece, deflate, predictor, dtype):
    values = random(21, 37, 7, dtype=dtype)
    data = written(values, order=order, planes=planes, piece=piece, deflate=deflate, predictor=predictor)
    result = read(data)
    assert result.dtype == values.dtype
    assert np.array_equal(result, values)
    assert head(data) == (37, 21, 7, "deep" if dtype == "uint16" else "bytes")
    assert tiff.images(io.BytesIO(data)) is None


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "float16", "float32", "float64"])
def test_numbers_of_each_type(dtype):
    values = (random(23, 31) // 2).astype(dtype) if np.dtype(dtype).kind != "f" else random(23, 31) / 65535
    values = values.astype(dtype)
    data = by_tifffile(values, photometric="minisblack", rowsperstrip=5)
    assert np.array_equal(read(data)[:, :, 0], values)
    form = {"uint8": "bytes", "uint16": "deep", "int16": "whole", "uint32": "whole"}.get(dtype, "floats")
    assert head(data) == (31, 23, 1, form)


@pytest.mark.parametrize("bits", [2, 4, 12])
def test_numbers_of_bits_that_fill_no_type(bits):
    """The highest number that the bits can hold is white, whatever type holds it in memory."""
    if bits == 12:
        pytest.importorskip("imagecodecs", reason="the extra 'tiff' is not installed")
    top = 2**bits - 1
    values = random(16, 24, dtype="uint16") % (top + 1)
    values = values.astype(np.uint8 if bits < 8 else np.uint16)
    values[0, :2] = 0, top
    each = np.unpackbits(values.astype(">u2")[..., None].view(np.uint8), axis=2)[:, :, -bits:]  # 16 x 24 x bits
    packed = by_tifffile(np.packbits(each.reshape(16, -1), axis=1), photometric="minisblack")
    data = set_tag(set_tag(packed, 256, 24), 258, bits)
    eight = tiff.read(io.BytesIO(data)).eight_bits()[:, :, 0].astype(int)
    assert eight[0, :2].tolist() == [0, 255]
    assert np.abs(eight - values * (255 / top)).max() <= 0.5
    if bits == 12:
        white = tiff.read(io.BytesIO(data)).eight_bits({"deep": 2000})[:, :, 0]
        assert np.abs(white - np.minimum(values * (255 / 2000), 255)).max() <= 0.5


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "CMYK", "I;16", "F", "1", "P"])
@pytest.mark.parametrize("options", [{}, {"compression": "tiff_adobe_deflate", "big_tiff": True}])
def test_a_page_is_what_pillow_reads_there(mode, options):
    data = several(pages_of(mode), **options)
    images = tiff.images(io.BytesIO(data))
    assert images is not None
    assert [page.number for (page,) in images] == [0, 1, 2, 3]
    for number, pages in enumerate(images):
        with Image.open(io.BytesIO(data)) as whole:
            whole.seek(number)
            wanted = np.asarray(decode.image(whole).convert("RGB"))
        image = decode.image(tiff.PageImage(lambda: io.BytesIO(data), pages))
        assert np.array_equal(np.asarray(image.convert("RGB")), wanted)
        layout = tiff.layout(io.BytesIO(data), pages)
        assert (layout.width, layout.height) == image.size
        assert layout.channels == len(image.getbands()) or mode == "LA"


@pytest.mark.parametrize(
    ("mode", "compression"),
    [("RGB", "jpeg"), ("L", "jpeg"), ("1", "group4"), ("L", "packbits"), ("RGB", "tiff_lzw"), ("I;16", "tiff_lzw")],
)
def test_pages_that_are_packed_in_other_ways(mode, compression):
    if mode == "I;16":
        pytest.importorskip("imagecodecs", reason="the extra 'tiff' is not installed")
    data = several(pages_of(mode), compression=compression)
    images = tiff.images(io.BytesIO(data))
    assert images is not None
    with Image.open(io.BytesIO(data)) as whole:
        whole.seek(2)
        wanted = np.asarray(decode.image(whole))
    assert np.array_equal(np.asarray(decode.image(tiff.PageImage(lambda: io.BytesIO(data), images[2]))), wanted)


def test_the_pages_of_tifffile_in_tiles_planes_and_big_files():
    for options in ({"tile": (16, 16)}, {"planarconfig": "separate"}, {"bigtiff": True, "byteorder": ">"}):
        separate = "planarconfig" in options
        values = random(3, 3, 20, 36, dtype="uint8") if separate else random(3, 20, 36, 3, dtype="uint8")
        data = by_tifffile(values, photometric="rgb", **options)
        images = tiff.images(io.BytesIO(data))
        assert images is not None
        for pages, wanted in zip(images, values, strict=True):
            assert np.array_equal(read(data, *pages), wanted.transpose(1, 2, 0) if separate else wanted)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("channels", [3, 5])
def test_an_image_is_turned_upright(orientation, channels):
    values = random(12, 20, channels, dtype="uint8")
    tags = [(274, "H", 1, orientation, True)]
    data = by_tifffile(values, photometric="rgb" if channels == 3 else "minisblack", extratags=tags, planarconfig=1)
    upright = []
    for channel in range(channels):
        exif = Image.Exif()
        exif[274] = orientation
        file = io.BytesIO()
        Image.fromarray(values[:, :, channel]).save(file, "PNG", exif=exif)
        upright.append(np.asarray(ImageOps.exif_transpose(Image.open(file))))
    assert np.array_equal(read(data), np.stack(upright, axis=2))
    assert head(data) == (*upright[0].shape[::-1], channels, "bytes")


def test_where_white_is_zero_numbers_are_turned_round():
    for dtype, top in (("uint8", 255), ("uint16", 65535)):
        values = random(9, 14, dtype=dtype)
        assert np.array_equal(read(by_tifffile(values, photometric="miniswhite"))[:, :, 0], top - values)
    image = noise(9, 14, mode="L")
    data = by_tifffile(np.asarray(image) > 127, photometric="miniswhite")
    assert np.array_equal(read(data)[:, :, 0], np.asarray(image) <= 127)


def test_a_palette_is_looked_up():
    palette = np.random.default_rng(0).integers(0, 2**16, (3, 256), dtype=np.uint16)
    values = random(9, 14, dtype="uint8")
    assert np.array_equal(read(by_tifffile(values, photometric="palette", colormap=palette)), (palette.T >> 8)[values])
    small = palette >> 8  # as some programs write it, in 8 bits
    assert np.array_equal(read(by_tifffile(values, photometric="palette", colormap=small)), small.T[values])
    gray = np.repeat(palette[:1], 3, axis=0)
    data = by_tifffile(values, photometric="palette", colormap=gray)
    assert head(data) == (14, 9, 1, "bytes")
    assert np.array_equal(read(data)[:, :, 0], (gray[0] >> 8)[values])


@pytest.mark.parametrize("kind", [1, 2])
def test_alpha_of_sixteen_bits_is_laid_on_white(kind):
    color, alpha = random(9, 14, 3) // 257 * 257, random(9, 14, 1) // 257 * 257
    stored = np.minimum(color, alpha) if kind == 1 else color  # of kind 1, color was multiplied by alpha
    data = by_tifffile(np.concatenate([stored, alpha], 2), photometric="rgb", extrasamples=[kind])
    share = alpha / 65535
    wanted = (stored if kind == 1 else stored * share) / 257 + 255 * (1 - share)
    assert np.abs(tiff.read(io.BytesIO(data)).eight_bits() - wanted).max() <= 2
    assert head(data) == (14, 9, 3, "deep")


@pytest.mark.parametrize(
    ("channels", "photometric", "extra", "wanted"),
    [
        *((1, 1, 0, 1), (2, 1, 0, 2), (2, 1, 2, 1), (3, 2, 0, 3), (4, 2, 0, 4), (4, 2, 1, 3)),
        *((4, 5, 0, 3), (3, 1, 0, 3), (13, 1, 0, 13)),
    ],
)
def test_the_channels_of_an_image(channels, photometric, extra, wanted):
    data = written(random(6, 5, channels, dtype="uint8"), photometric=photometric, extra=extra)
    assert head(data) == (5, 6, wanted, "bytes")
    assert tiff.read(io.BytesIO(data)).eight_bits().shape == (6, 5, wanted)


@pytest.mark.parametrize("piece", [None, (16, 16)])
@pytest.mark.parametrize("planes", [False, True])
def test_missing_byte_counts_are_worked_out(piece, planes):
    values = random(21, 37, 3, dtype="uint8")
    data = written(values, piece=piece, planes=planes, photometric=2)
    assert np.array_equal(read(without_tag(data, 325 if piece else 279)), values)


@pytest.mark.parametrize("rows", [5, 16])
@pytest.mark.parametrize("deflate", [False, True])
def test_a_file_that_is_cut_off_says_so(rows, deflate):
    """The directory stands before the pixels, as scanners write it."""
    data = by_tifffile(random(16, 16), photometric="minisblack", rowsperstrip=rows, compression=8 if deflate else None)
    with pytest.raises(ValueError, match=r"cut off: [0-9]+ of [0-9]+ bytes of a strip or tile"):
        read(data[:-20])


@pytest.mark.parametrize("cut", [6, 8, 300, -200, -20])
def test_a_damaged_file_is_an_error(cut):
    data = written(random(16, 16, 5))
    with pytest.raises((ValueError, OSError)):
        read(data[:cut])


@pytest.mark.parametrize(("tag", "value"), [(278, 3), (256, 50), (262, 3), (339, 6), (258, 11)])
def test_tags_that_lie_are_an_error(tag, value):
    """More strips than are listed, wider rows, a palette that is missing, complex numbers, bits that are not there."""
    data = set_tag(written(random(16, 16, 1, dtype="uint8"), deflate=True), tag, value)
    with pytest.raises((ValueError, OSError)):
        read(data)


def test_what_tifffile_logs_is_not_printed(capfd):
    data = without_tag(written(random(16, 16, 1, dtype="uint8")), 279)
    logger = logging.getLogger("tifffile")
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append
    read(data)
    assert capfd.readouterr().err == ""
    logger.addHandler(handler)
    read(data)
    logger.removeHandler(handler)
    assert records  # whoever listens hears it


def test_without_imagecodecs_pillow_reads_what_it_reads_whole():
    """Eight bits alone; for the rest the error names the remedy."""
    values = random(9, 14, dtype="uint8")
    lzw, file = several([Image.fromarray(values)] * 2, compression="tiff_lzw"), io.BytesIO()
    Image.fromarray(random(9, 14)).save(file, "TIFF", compression="tiff_lzw")
    code = (
        "import io, sys; sys.modules['imagecodecs'] = None\n"
        "from nearfar.modalities.image import tiff\n"
        "assert 'tifffile' not in sys.modules\n"  # it is imported when first needed
        f"data = {lzw!r}\n"
        "second = tiff.images(io.BytesIO(data))[1]\n"
        "print(tiff.read(io.BytesIO(data), second).values.tobytes().hex())\n"
        f"try: tiff.read(io.BytesIO({file.getvalue()!r}))\n"
        "except ValueError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    pixels, message = done.stdout.splitlines()
    assert bytes.fromhex(pixels) == values.tobytes()
    assert message.endswith("takes imagecodecs: pip install 'nearfar[tiff]'")


@pytest.mark.parametrize("mode", ["L", "I;16"])
@pytest.mark.parametrize("compression", ["raw", "tiff_adobe_deflate"])
def test_pages_as_channels_of_one_image(mode, compression):
    pages = [page.crop((0, 0, 31, 23)) for page in pages_of(mode)]
    data = several(pages, compression=compression, tiffinfo={270: "ImageJ=1.54\nchannels=4\n"})
    (image,) = tiff.images(io.BytesIO(data)) or [()]
    assert np.array_equal(read(data, *image), np.stack([np.asarray(page) for page in pages], axis=2))
    assert tiff.layout(io.BytesIO(data), image).channels == 4
    differing = several(pages_of("L"), tiffinfo={270: "ImageJ=1.54\nchannels=4\n"})
    with pytest.raises(ValueError, match="differ in form"):
        read(differing, *(tiff.images(io.BytesIO(differing)) or [])[0])


@pytest.mark.parametrize("form", [{"ome": True}, {"imagej": True}])
def test_channels_as_tifffile_writes_them(form):
    """Two times three slices of three channels are six images."""
    values = random(2, 3, 3, 9, 14)
    file = io.BytesIO()
    tifffile.imwrite(file, values, photometric="minisblack", metadata={"axes": "TZCYX"}, **form)
    images = tiff.images(io.BytesIO(file.getvalue()))
    assert images is not None
    stacked = np.stack([read(file.getvalue(), *pages) for pages in images])
    assert np.array_equal(stacked, values.reshape(6, 3, 9, 14).transpose(0, 2, 3, 1))


def test_of_a_film_only_the_wanted_page_is_decoded(monkeypatch):
    values = random(50, 9, 14)
    data = by_tifffile(values, photometric="minisblack", compression="zlib")
    images = tiff.images(io.BytesIO(data))
    assert images is not None
    decoded = []
    asarray = tifffile.TiffPage.asarray
    monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda p, **kw: decoded.append(p.offset) or asarray(p, **kw))
    assert np.array_equal(read(data, *images[37])[:, :, 0], values[37])
    assert decoded == [images[37][0].offset]


def test_of_a_film_only_the_wanted_page_is_looked_for():
    """What it costs to read a page must not grow with the film: no more than a few places of the file are read."""

    class Counting(io.BytesIO):
        seeks = 0

        def seek(self, *where: int) -> int:
            self.seeks += 1
            return super().seek(*where)

    counts = []
    for n in (10, 200):
        data = by_tifffile(random(n, 9, 14), photometric="minisblack")
        page, file = (tiff.images(io.BytesIO(data)) or [])[-1], Counting(data)
        tiff.layout(file, page)
        tiff.read(file, page)
        counts.append(file.seeks)
    assert counts[0] == counts[1]


def test_overviews_in_a_pyramid_are_left_out():
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as tif:
        values = random(64, 64, 3, dtype="uint8")
        for step, kind in ((1, 0), (2, 1), (4, 1)):
            tif.write(values[::step, ::step], subfiletype=kind, photometric="rgb", metadata=None)
    assert tiff.images(io.BytesIO(file.getvalue())) is None
    assert np.array_equal(read(file.getvalue()), values)


@pytest.mark.parametrize(
    ("described", "wanted"),
    [
        ("", [[i] for i in range(6)]),
        ("scanned", [[i] for i in range(6)]),
        ("ImageJ=1.54\nimages=6\nslices=6\n", [[i] for i in range(6)]),
        ("ImageJ=1.54\nimages=6\nchannels=2\nframes=3\n", [[0, 1], [2, 3], [4, 5]]),
        ("ImageJ=1.54\nimages=6\nchannels=4\n", [[i] for i in range(6)]),  # it does not come out
        ('<OME><Pixels DimensionOrder="XYCZT" SizeC="3" SizeZ="2" SizeT="1"/></OME>', [[0, 1, 2], [3, 4, 5]]),
        ('<OME><Pixels DimensionOrder="XYZCT" SizeC="3" SizeZ="2" SizeT="1"/></OME>', [[0, 2, 4], [1, 3, 5]]),
        ('<OME><Pixels DimensionOrder="XYTZC" SizeC="2" SizeZ="1" SizeT="3" /></OME>', [[0, 3], [1, 4], [2, 5]]),
        (2 * '<ome:Pixels SizeC="3" SizeZ="1" SizeT="1"></ome:Pixels>', [[0, 1, 2], [3, 4, 5]]),
        ('<OME><Pixels DimensionOrder="XYCZT" SizeC="3" SizeZ="9" SizeT="1"/></OME>', [[i] for i in range(6)]),
    ],
)
def test_which_pages_are_channels_is_what_the_description_says(described, wanted):
    data = several([noise(8, 8, mode="L")] * 6, tiffinfo={270: described} if described else {})
    images = tiff.images(io.BytesIO(data))
    assert images is not None
    assert [[page.number for page in pages] for pages in images] == wanted


@pytest.mark.parametrize(("tag", "value", "copies"), [(254, 1, 2), (254, 4, 2), (255, 2, 2), (254, 2, 0), (254, 0, 0)])
def test_small_copies_and_masks_are_no_pages(tag, value, copies):
    large, small = noise(16, 16, mode="L"), noise(8, 8, mode="L")
    small.encoderinfo = {"tiffinfo": {tag: value}}
    data = several([large, small, small])
    images = tiff.images(io.BytesIO(data))
    assert (1 if images is None else len(images)) == 3 - copies


def test_what_imagej_writes_without_pages_is_an_error():
    data = several([noise(8, 8, mode="L")], tiffinfo={270: "ImageJ=1.54\nimages=900\nslices=900\n"})
    with pytest.raises(ValueError, match=r"holds 900 images by ImageJ's count and lists 1"):
        tiff.images(io.BytesIO(data))


def test_pages_in_a_circle_are_an_error():
    data = bytearray(several(pages_of("L")))
    (first,) = struct.unpack("<I", data[4:8])
    at = first + 2 + 12 * struct.unpack("<H", data[first : first + 2])[0]
    data[at : at + 4] = struct.pack("<I", first)
    with pytest.raises(ValueError, match="what follows page 1 of it came before"):
        tiff.images(io.BytesIO(bytes(data)))


def test_a_folder_of_many_channels_is_opened(tmp_path):
    values = random(12, 20, 13)
    for i in range(4):
        (tmp_path / f"{i}.tif").write_bytes(written(np.roll(values, i, 0), deflate=True, predictor=2))
    images = open_images(tmp_path, side=12)
    assert (images.channels, images.side, len(images)) == (13, 12, 4)
    assert images.aspect.tolist() == pytest.approx([20 / 12] * 4)
    assert images.notes == [
        "4 of 4 images have 16 bits a channel; they are scaled to 8, 0 to 65,535 (the range of their type) to 0 to 255."
    ]
    scaled = np.round(values / 257).astype(np.uint8)
    for channel in range(13):
        wanted = Image.fromarray(scaled[:, :, channel]).resize((12, 12), Image.Resampling.BICUBIC)
        assert np.array_equal(images.pixels(torch.tensor([0]))[0, channel], np.asarray(wanted))
    assert np.array_equal(np.asarray(images.original(0)), scaled[:, :, :3])
    demand = open_images(tmp_path, side=12, memory=0)
    assert torch.equal(demand.pixels(torch.arange(4)), images.pixels(torch.arange(4)))
