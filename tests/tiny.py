"""Images so small and few that a whole training run takes a second."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
from PIL import Image

from nearfar.files import file_digest

FLAGS = ("--encoder", "conv4", "--epochs", "2", "--batch", "16", "--probe-every", "1", "--views", "drawing")
SETTINGS = {"encoder": "conv4", "epochs": 2, "batch": 16, "views": "drawing", "probe_every": 1}


def tiny_images(n: int = 48, classes: int = 4, side: int = 16) -> np.ndarray:
    """n images (n x side x side, uint8) that differ by class: a bar at an angle of the class, and noise."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] - side / 2
    angle = np.pi * (np.arange(n) % classes) / classes
    away = np.abs(np.cos(angle)[:, None, None] * x + np.sin(angle)[:, None, None] * y)
    return (255 * (away < 2) * random.uniform(0.6, 1, (n, side, side))).astype(np.uint8)


def evaluated(run: Path) -> Path:
    """The one result of `nearfar evaluate` that a run holds."""
    (path,) = (run / "results").glob("evaluate-*.json")
    return path


def array_file(path: Path, n: int = 48, classes: int = 4, *, labeled: bool = True) -> Path:
    """A .npz file of such images."""
    labels = {"labels": np.arange(n) % classes} if labeled else {}
    np.savez(path, images=tiny_images(n, classes), **labels)
    return path


def folder(path: Path, n: int = 24, classes: int = 4, *, bad: int = 0, nested: bool = False) -> Path:
    """A folder of such images as PNG files, of which the first `bad` are cut short; `nested`: one folder a class."""
    path.mkdir(parents=True)
    for i, image in enumerate(tiny_images(n, classes)):
        file = path / (f"class{i % classes}" if nested else "") / f"{i:03d}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(file)
        if i < bad:
            file.write_bytes(file.read_bytes()[:40])
    return path


def contents(folder: Path, without: Collection[str] = ()) -> dict[str, str]:
    """The digest of each file of a folder, but for those of some names."""
    return {
        path.relative_to(folder).as_posix(): file_digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in without
    }
