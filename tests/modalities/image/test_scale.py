"""Which number is white, by a table of forms with a pixel each, and by data sets that once came out wrong."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from nearfar.cli import main
from nearfar.modalities.image.samples import open_images

from .images import encoded, noise


def png(values: np.ndarray, kind: int, *, clear: bytes = b"") -> bytes:
    """H x W x channels as a PNG of 16 bits of a kind: 0 gray, 2 RGB, 4 gray and alpha, 6 RGBA."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)), (b"tRNS", clear)]
    parts += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    chunks = (
        struct.pack(">I", len(b)) + t + b + struct.pack(">I", zlib.crc32(t + b)) for t, b in parts if b or t != b"tRNS"
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def array(*pixel: float, dtype: Any = np.uint16) -> np.ndarray:
    """4 x 4 pixels alike."""
    return np.broadcast_to(np.array(pixel), (4, 4, len(pixel))).astype(dtype)


def npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def tiff(values: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


def pnm(head: bytes, numbers: list[int]) -> bytes:
    """A P2, P3, P5 or P6 file with 4 x 4 pixels alike."""
    text = head[:2] in (b"P2", b"P3")
    return head + (b" ".join(b"%d" % n for n in numbers * 16) if text else np.array(numbers * 16, ">u2").tobytes())


GRAY, COLOR, HALF = array(1000), array(1000, 2000, 4000), 65535 // 2

FORMS = {
    # name: (ending, file, its pixel, its pixel with --white 2000, its pixel by the highest that is there)
    "gray, 8 bits": (".png", encoded(Image.new("L", (4, 4), 100)), [100], [100], [100]),
    "gray, 1 bit": (".png", encoded(Image.new("1", (4, 4), 1)), [255], [255], [255]),
    "CMYK": (".jpg", encoded(Image.new("CMYK", (4, 4), (0, 0, 0, 0)), "JPEG"), [255] * 3, [255] * 3, [255] * 3),
    "PNG, gray": (".png", png(GRAY, 0), [4], [128], [255]),
    "PNG, gray that is clear": (".png", png(GRAY, 0, clear=struct.pack(">H", 1000)), [255], [255], [255]),
    "PNG, gray and alpha": (".png", png(array(1000, HALF), 4), [129], [191], [255]),
    "PNG, RGB": (".png", png(COLOR, 2), [4, 8, 16], [128, 255, 255], [64, 128, 255]),
    "PNG, RGB that is clear": (
        *(".png", png(COLOR, 2, clear=struct.pack(">HHH", 1000, 2000, 4000))),
        *([255] * 3, [255] * 3, [255] * 3),
    ),
    "PNG, RGBA": (
        *(".png", png(array(1000, 2000, 4000, HALF), 6)),
        *([130, 132, 136], [191, 255, 255], [159, 191, 255]),
    ),
    "PGM, 12 bits": (".pgm", pnm(b"P5\n4 4\n4095\n", [1000]), [62], [128], [255]),
    "PGM, 12 bits, as text": (".pgm", pnm(b"P2 4 4 4095\n# text\n", [1000]), [62], [128], [255]),
    "PPM, 12 bits": (
        ".ppm",
        pnm(b"P6\n4 4\n4095\n", [1000, 2000, 4000]),
        [62, 125, 249],
        [128, 255, 255],
        [64, 128, 255],
    ),
    "JPEG 2000": (".jp2", encoded(Image.fromarray(GRAY[:, :, 0]), "JPEG2000"), [4], [128], [255]),
    "TIFF, gray": (".tif", tiff(GRAY[:, :, 0]), [4], [128], [255]),
    "TIFF, RGB": (".tif", tiff(COLOR, photometric="rgb"), [4, 8, 16], [128, 255, 255], [64, 128, 255]),
    "TIFF, int16": (".tif", tiff(array(1000, dtype=np.int16)[:, :, 0]), [4], [128], [255]),
    "TIFF, uint32": (".tif", tiff(array(200, dtype=np.uint32)[:, :, 0]), [200], [26], [255]),
    "TIFF, floats to 1": (".tif", tiff(array(0.5, dtype=np.float32)[:, :, 0]), [128], [0], [255]),
    "TIFF, floats to 255": (".tif", tiff(array(100, dtype=np.float64)[:, :, 0]), [100], [13], [255]),
    "array, 8 bits": (".npy", npy(array(100, dtype=np.uint8)), [100], [100], [100]),
    "array, bool": (".npy", npy(array(1, dtype=bool)), [255], [255], [255]),
    "array, int8": (".npy", npy(array(100, dtype=np.int8)), [100], [13], [255]),
    "array, uint16": (".npy", npy(COLOR), [4, 8, 16], [128, 255, 255], [64, 128, 255]),
    "array, int64": (".npy", npy(array(100, 200, 50, dtype=np.int64)), [100, 200, 50], [13, 26, 6], [128, 255, 64]),
    "array, float16": (".npy", npy(array(0.5, dtype=np.float16)), [128], [0], [255]),
    "array, float64": (".npy", npy(array(0.25, 0.5, 1, dtype=np.float64)), [64, 128, 255], [0] * 3, [64, 128, 255]),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_pixel_of_each_form(tmp_path: Path, name: str) -> None:
    ending, data, *wanted = FORMS[name]
    (tmp_path / f"a{ending}").write_bytes(data)
    for white, pixel in zip((None, 2000, "measured"), wanted, strict=True):
        for memory in (None, 0):
            images = open_images(tmp_path, white=white, memory=memory)  # pyright: ignore[reportArgumentType]
            assert images.pixels(torch.tensor([0]))[0, :, 1, 2].tolist() == pytest.approx(pixel, abs=1)
            shown = images.original(0).getpixel((2, 1))
            assert (list(shown) if isinstance(shown, tuple) else [shown]) == pytest.approx(pixel, abs=1)
    assert images.channels == len(wanted[0])


def test_one_float_above_1_turns_no_image_black(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((4, 32, 32, 3), dtype=np.float32)
    values[2, 5, 5, 0] = 1.0001
    for i, image in enumerate(values):
        np.save(tmp_path / f"{i}.npy", image)
    wanted = np.round(values.clip(0, 1) * 255)
    for data in (tmp_path, values, torch.tensor(values).permute(0, 3, 1, 2), list(values)):
        images = open_images(data)
        assert np.abs(images.pixels(torch.arange(4)).permute(0, 2, 3, 1).numpy() - wanted).max() <= 1
        assert "0 to 1 (by all of them together" in images.notes[0]
        assert "Cut off at white: 1 (" in images.notes[0]


def test_the_scale_of_an_image_does_not_depend_on_what_comes_after_it(tmp_path: Path) -> None:
    """Floats from 0 to 255 of which some images are dark; and whole numbers of a wide type."""
    dark, bright = np.full((8, 8), 20.0), np.full((8, 8), 255.0)
    for kind in (np.float64, np.int32):
        images = open_images([dark.astype(kind), bright.astype(kind)])
        assert images.pixels(torch.arange(2))[:, 0, 0, 0].tolist() == [20, 255]
    with pytest.raises(ValueError, match=r"no scale in common: 1 of 2 .*'0'.*'1'.*--white 255"):
        open_images([dark / 255, bright])
    images = open_images([dark / 255, bright], white=255)
    assert "Nearly black by that: 1 ('0')" in images.notes[0]


@pytest.mark.parametrize(
    ("bad", "why"),
    [(np.nan, "1 of its 64 numbers are NaN"), (np.inf, "1 of its 64"), (-3.0, "below 0"), (3.0, "--white")],
)
def test_an_image_whose_numbers_do_not_fit_is_bad_and_changes_no_other(bad: float, why: str) -> None:
    images = [np.full((8, 8), 0.5, np.float32) for _ in range(3)]
    images[1][3, 3] = bad
    opened = open_images(images, max_bad=0.5)
    assert [name for name, _ in opened.skipped] == ["1"]
    assert why in opened.skipped[0][1]
    assert opened.pixels(torch.arange(2)).unique().tolist() == [128]
    with pytest.raises(ValueError, match="--max-bad"):
        open_images(images)


def test_standardized_images_are_refused_with_the_remedy() -> None:
    values = np.random.default_rng(0).normal(size=(3, 8, 8)).astype(np.float32)
    with pytest.raises(ValueError, match=r"'0': floats from -\d.* to \d.*; wanted: 0 to 1, .*--white"):
        open_images(values)
    images = open_images(values, white=2)
    assert "Cut off at black: 3 ('0', '1', '2')" in images.notes[0]


def test_the_scale_of_training_holds_for_data_that_come_later(tmp_path: Path) -> None:
    trained = open_images([np.full((8, 8), 200.0), np.full((8, 8), 100.0)])
    later = open_images([np.full((8, 8), 0.5), np.full((8, 8), 300.0)], white=trained.whites)
    assert later.pixels(torch.arange(2))[:, 0, 0, 0].tolist() == [0, 255]
    assert "0 to 255 (as in training)" in later.notes[0]
    assert "Nearly black by that: 1 ('0')" in later.notes[0]
    assert "Cut off at white: 1 ('1'), with numbers up to 300" in later.notes[0]


def test_a_white_that_nothing_needs_is_said(tmp_path: Path) -> None:
    noise().save(tmp_path / "a.png")
    for data in (tmp_path, np.zeros((2, 8, 8), np.uint8)):
        assert "--white 4095 changes nothing" in open_images(data, white=4095).notes[-1]


def test_white_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(8):
        np.save(tmp_path / f"{i}.npy", np.full((16, 16), 100 * i + 1.0))
    flags = [str(tmp_path), "--out", str(tmp_path / "groups.csv"), "--encoder", "conv4"]
    assert main(["doctor", *flags, "--white", "800"]) == 0
    assert "0 to 800 (as asked for)" in capsys.readouterr().out
    assert main(["doctor", *flags, "--white", "measured"]) == 0
    assert "0 to 701 (the highest value there is)" in capsys.readouterr().out
    for wrong in ("-1", "nan"):
        assert main(["doctor", *flags, "--white", wrong]) == 2
        assert f"--white {float(wrong)}" in capsys.readouterr().err
