"""Little images and folders of them for the tests."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image


def noise(height: int = 12, width: int = 12, seed: int = 0, mode: str = "RGB") -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    shape = (height, width) if channels == 1 else (height, width, channels)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Image.frombytes(mode, (width, height), pixels.tobytes())


def smooth(height: int, width: int) -> Image.Image:
    """An image that survives JPEG and shows which way up it is."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = 255 * x / max(width - 1, 1), 255 * y / max(height - 1, 1)
    return Image.fromarray(np.stack([red, green, 128 + 0 * x], axis=2).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", exif: Image.Exif | None = None) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **({} if exif is None else {"exif": exif}))
    return file.getvalue()


def folder(root: Path, *names: str) -> Path:
    """A folder of different images under these names."""
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(noise(seed=i)))
    return root
