from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from nearfar.modalities.image import tiff
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


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("piece", [None, (16, 16)])
@pytest.mark.parametrize(("deflate", "predictor"), [(False, 1), (True, 1), (True, 2)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_what_was_written_is_read(order, planes, piece, deflate, predictor, dtype):
    values = random(21, 37, 7, dtype=dtype)
    data = written(values, order=order, planes=planes, piece=piece, deflate=deflate, predictor=predictor)
    read = tiff.read(data)
    assert read.dtype == values.dtype
    assert np.array_equal(read, values)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "packbits", "tiff_adobe_deflate"])
def test_color_is_read_as_by_pillow(compression):
    image, file = noise(23, 31), io.BytesIO()
    image.save(file, "TIFF", compression=compression)
    assert not tiff.layout(io.BytesIO(file.getvalue())).many
    assert np.array_equal(tiff.read(file.getvalue()), np.asarray(image))


def test_floats_and_signed_numbers():
    values = np.random.default_rng(0).normal(size=(6, 5, 4)).astype(np.float32)
    assert np.array_equal(tiff.read(written(values)), values)
    signed = random(6, 5, 2, dtype="int16")
    assert np.array_equal(tiff.read(written(signed, order=">")), signed)


@pytest.mark.parametrize(
    ("channels", "photometric", "extra", "many"),
    [
        *((1, 1, 0, False), (2, 1, 0, True), (2, 1, 2, False), (3, 2, 0, False), (4, 2, 0, True), (4, 2, 1, False)),
        *((4, 5, 0, False), (3, 1, 0, True), (13, 1, 0, True)),
    ],
)
def test_what_pillow_reads_whole_is_left_to_it(channels, photometric, extra, many):
    data = written(random(6, 5, channels, dtype="uint8"), photometric=photometric, extra=extra)
    assert tiff.layout(io.BytesIO(data)).many == many


@pytest.mark.parametrize("cut", [6, 8, 300, -200, -20])
def test_a_damaged_file_is_an_error(cut):
    data = written(random(16, 16, 5))
    with pytest.raises((ValueError, OSError)):
        tiff.read(data[:cut])


def several(pages: list[Image.Image], **options) -> bytes:
    file = io.BytesIO()
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:], **options)
    return file.getvalue()


def pages_of(mode: str, n: int = 4) -> list[Image.Image]:
    if mode == "I;16":
        return [Image.fromarray(random(23, 31) // (i + 1)) for i in range(n)]
    if mode == "1":
        return [noise(23, 31, seed=i, mode="L").convert("1") for i in range(n)]
    if mode == "P":
        return [noise(23, 31, seed=i).quantize(16) for i in range(n)]
    return [noise(23 + i, 31, seed=i, mode=mode) for i in range(n)]  # pages may differ in size


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK", "I;16", "1", "P"])
@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}])
@pytest.mark.parametrize("big", [False, True])
def test_a_page_as_a_file_of_its_own_is_what_pillow_finds_there(mode, options, big):
    data = several(pages_of(mode), big_tiff=big, **options)
    found = tiff.images(io.BytesIO(data))
    assert found is not None
    assert len(found) == 4
    for number, page in enumerate(found):
        with Image.open(io.BytesIO(data)) as whole, Image.open(io.BytesIO(tiff.extract(io.BytesIO(data), page))) as one:
            whole.seek(number)
            assert (one.mode, one.size) == (whole.mode, whole.size)
            assert np.array_equal(np.asarray(one.convert("RGBA")), np.asarray(whole.convert("RGBA")))


@pytest.mark.parametrize(("mode", "compression"), [("RGB", "jpeg"), ("L", "jpeg"), ("1", "group4"), ("L", "packbits")])
def test_pages_that_are_packed_in_other_ways(mode, compression):
    data = several(pages_of(mode), compression=compression)
    found = tiff.images(io.BytesIO(data))
    assert found is not None
    with Image.open(io.BytesIO(data)) as whole, Image.open(io.BytesIO(tiff.extract(io.BytesIO(data), found[2]))) as one:
        whole.seek(2)
        assert np.array_equal(np.asarray(one), np.asarray(whole))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("piece", [None, (16, 16)])
def test_a_page_of_many_channels(order, planes, piece):
    values = random(21, 37, 7)
    data = written(values, order=order, planes=planes, piece=piece, deflate=True, predictor=2)
    assert tiff.images(io.BytesIO(data)) is None
    assert np.array_equal(tiff.read(tiff.extract(io.BytesIO(data), [tiff._begin(io.BytesIO(data))[1]])), values)


@pytest.mark.parametrize("mode", ["L", "I;16"])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_pages_as_channels_of_one_image(mode, compression):
    pages = [page.crop((0, 0, 31, 23)) for page in pages_of(mode)]
    data = several(pages, compression=compression, tiffinfo={270: "ImageJ=1.54\nchannels=4\n"})
    found = tiff.images(io.BytesIO(data))
    assert found is not None
    assert len(found) == 1
    read = tiff.read(tiff.extract(io.BytesIO(data), found[0]))
    assert np.array_equal(read, np.stack([np.asarray(page) for page in pages], axis=2))
    differing = several(pages_of("L"), tiffinfo={270: "ImageJ=1.54\nchannels=4\n"})
    with pytest.raises(ValueError, match="differ in form"):
        tiff.extract(io.BytesIO(differing), (tiff.images(io.BytesIO(differing)) or [])[0])


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
    found = tiff.images(io.BytesIO(data))
    assert found is not None
    every = sorted(page for pages in found for page in pages)  # Pillow writes them in order
    assert found == [tuple(every[i] for i in row) for row in wanted]


@pytest.mark.parametrize(("tag", "value", "copies"), [(254, 1, 2), (254, 4, 2), (255, 2, 2), (254, 2, 0), (254, 0, 0)])
def test_small_copies_and_masks_are_no_pages(tag, value, copies):
    large, small = noise(16, 16, mode="L"), noise(8, 8, mode="L")
    small.encoderinfo = {"tiffinfo": {tag: value}}
    data = several([large, small, small])
    found = tiff.images(io.BytesIO(data))
    assert (1 if found is None else len(found)) == 3 - copies


def test_what_imagej_writes_without_pages_is_an_error():
    data = several([noise(8, 8, mode="L")], tiffinfo={270: "ImageJ=1.54\nimages=900\nslices=900\n"})
    with pytest.raises(ValueError, match=r"holds 900 images by ImageJ's count and lists 1"):
        tiff.images(io.BytesIO(data))


def test_pages_in_a_circle_are_an_error():
    data = bytearray(several(pages_of("L")))
    _, first = tiff._begin(io.BytesIO(bytes(data)))
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
