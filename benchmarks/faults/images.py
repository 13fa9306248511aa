"""Image files and names that come from elsewhere: cut, flipped, of another scale, or called to do harm."""

from __future__ import annotations

import csv
import io
import os
import random
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import EpsImagePlugin, Image

from benchmarks.faults import Faults, command
from nearfar.errors import UserError
from nearfar.files import replace_csv
from nearfar.modalities.image.samples import open_images

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "AVIF", "TIFF", "PPM", "JPEG2000", "TGA")


def _noise(random: random.Random, shape: tuple[int, ...] = (24, 24, 3)) -> np.ndarray:
    return np.random.default_rng(random.getrandbits(32)).integers(0, 256, shape, dtype=np.uint8)


def _encoded(values: np.ndarray, form: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, form)
    return file.getvalue()


def _pixels(data: Any, **options: Any) -> np.ndarray | str:
    """The squares, N x H x W x C; or why there are none."""
    try:
        images = open_images(data, **options)
    except UserError as error:
        return str(error)
    return images.pixels(torch.arange(len(images))).permute(0, 2, 3, 1).numpy()


def cut_images(faults: Faults, folder: Path, random: random.Random, many: int) -> None:
    """An image file is cut short, in any of ten formats

    It must be named as one that cannot be decoded, or give the pixels of the whole file.
    """
    for i in range(many):
        form = FORMATS[i % len(FORMATS)]
        whole = _encoded(_noise(random), form)
        wanted = _pixels([whole])
        cut = whole[: random.randrange(len(whole))]
        found = _pixels([cut])
        same = isinstance(found, np.ndarray) and np.array_equal(found, wanted)
        faults.tell(
            same or (isinstance(found, str) and "'0'" in found), f"{form} cut to {len(cut)} of {len(whole)} bytes"
        )


def foreign_images(faults: Faults, folder: Path, random: random.Random, many: int) -> None:
    """What is called an image is PostScript, PSD, text, an archive, or random bytes

    No program may be started, and the file must be named.
    """
    started: list[object] = []
    known = EpsImagePlugin.Ghostscript
    EpsImagePlugin.Ghostscript = lambda *given, **named: started.append(given)  # pyright: ignore[reportAttributeAccessIssue]
    page = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 12 12\n%%EndComments\nshowpage\n"
    forms = (
        page,
        b"8BPS\0\1" + bytes(600),
        b"hello",
        b"PK\3\4" + bytes(99),
        b"",
        b"%PDF-1.7\n",
        b"\0\0\1\0\1\0" + bytes(99),
    )
    try:
        for i in range(many):
            data = forms[i % len(forms)] if i % 8 else random.randbytes(random.randrange(1, 500))
            path = folder / f"{i}.{random.choice(('jpg', 'png', 'tif', 'gif', 'webp', 'heic'))}"
            path.write_bytes(data)
            found = _pixels([path])
            faults.tell(isinstance(found, str) and path.name in found and not started, f"{path.name}: {data[:12]!r}")
    finally:
        EpsImagePlugin.Ghostscript = known


def float_scales(faults: Faults, folder: Path, random: random.Random, many: int) -> None:
    """Floats beyond white, NaN, standardized, of two scales, or of a later scale

    The other images must stay as they are; what has no clear scale must be refused by a sentence with --white.
    """
    for _ in range(many):
        values = _noise(random, (4, 8, 8, 3)) / 255
        white = random.choice((1.0, 255.0))
        fault = random.choice(("above", "NaN", "standardized", "mixed", "later"))
        data, well, wanted = (values * white).astype(np.float32), False, np.round(values * 255)
        place = tuple(random.randrange(n) for n in values.shape)
        if fault == "above":
            data[place] = white * random.uniform(1.0001, 1.2)
            wanted[place] = 255
            found = _pixels(random.choice((data, list(data), torch.tensor(data).permute(0, 3, 1, 2))))
        elif fault == "NaN":
            data[place] = random.choice((np.nan, np.inf, -np.inf))
            wanted = np.delete(wanted, place[0], 0)
            found = _pixels(data, max_bad=0.5)
        elif fault == "standardized":
            found = _pixels((data - data.mean()) / data.std())
        elif fault == "mixed":
            data[place[0]] /= data[place[0]].max() * (1 if white == 255 else 1 / 255)
            found = _pixels(data)
        else:
            first = open_images(data)
            found = _pixels(data[::-1][:1] * 0.5, white=first.whites)
            wanted = np.round(wanted[::-1][:1] * 0.5)
        if fault in ("standardized", "mixed"):
            well = isinstance(found, str) and "--white" in found
        elif isinstance(found, np.ndarray):
            well = found.shape == wanted.shape and bool((np.abs(found - wanted) <= 1).all())
        faults.tell(well, f"{fault}, white {white}: {found if isinstance(found, str) else found.shape}")


def hostile_names(faults: Faults, folder: Path, random: random.Random, many: int) -> None:
    """Names not UTF-8, or with line breaks, terminal escapes, formulas

    Each must be found again by the table that is written of it; no cell may be a formula, and nothing raw be printed.
    """
    parts = [
        b"\xe9",
        b"\xff",
        b"\n",
        b"\r",
        b"\t",
        b"\x1b[2J",
        b"\x9b",
        b"=",
        b"+",
        b"-",
        b"@",
        b"'",
        b'"',
        b",",
        b" ",
        b"<b>",
    ]
    data = folder / "data"
    data.mkdir()
    for i in range(many):
        name = b"".join(random.choices(parts, k=random.randrange(1, 5))) + b"%d.png" % i
        (data / os.fsdecode(name)).write_bytes(_encoded(_noise(random, (16, 16, 3)), "PNG"))
    images = open_images(data)
    table = replace_csv(folder / "labels.csv", [("path", "label"), *((name, f"of {name}") for name in images.names)])
    labeled = open_images(data, labels=table)
    with table.open(encoding="utf-8", newline="") as file:
        cells = [row[0] for row in csv.reader(file)][1:]
    for i, name in enumerate(images.names):
        own = labeled.classes[int(labeled.label[i])] if labeled.label[i] >= 0 else "none"
        raw = cells[i].startswith(("=", "+", "-", "@", "\t", "\r"))
        faults.tell(own == f"of {name}" and not raw, f"{name!r}: its label is {own!r}, its cell {cells[i]!r}")
    (data / "broken\x1b[2J.png").write_bytes(b"no image")
    said = command(["doctor", data, "--out", folder / "groups.csv", "--encoder", "conv4"])
    faults.tell(said.sound and "\x1b" not in said.text and "not UTF-8" in said.text, f"doctor: {said.text[-300:]!r}")


def large_images(faults: Faults, folder: Path, random: random.Random, many: int) -> None:
    """A tiny file claims more pixels than the limit

    It must be refused from its header, by a sentence whose flag then opens it.
    """
    for i in range(min(many, 8)):
        width, height = random.randrange(9_600, 10_000), random.randrange(9_600, 10_000)
        row = b"\0" + bytes((width + 7) // 8)
        head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\1\0\0\0\0"
        parts = ((b"IHDR", head), (b"IDAT", zlib.compress(row * height, 1)), (b"IEND", b""))
        chunks = (len(b).to_bytes(4, "big") + t + b + zlib.crc32(t + b).to_bytes(4, "big") for t, b in parts)
        path = folder / f"{i}.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
        limit, why = Image.MAX_IMAGE_PIXELS, _pixels([path])
        named = f"--max-pixels {width * height} "
        found = _pixels([path], max_pixels=width * height, side=16) if i < 2 else np.zeros(0)
        Image.MAX_IMAGE_PIXELS = limit
        faults.tell(
            isinstance(why, str) and named in why and isinstance(found, np.ndarray), f"{width} x {height}: {why}"
        )
