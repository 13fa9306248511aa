"""Pairs in small: shapes of a color as numbers or as images, and captions that say which."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tokenizers", reason="tokenizers is not installed (the extra text)")
pytest.importorskip("transformers", reason="transformers is not installed (the extra text)")

COLORS = {"red": (200, 30, 30), "green": (30, 180, 40), "blue": (30, 40, 210), "white": (240, 240, 240)}
SIZES = ("small", "large")


def rows(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """N different pairs: a picture of 16 px, its mean color as three numbers, a caption; the last quarter is test."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(n):
        color, size = list(COLORS)[i % 4], SIZES[i // 4 % 2]
        picture = np.clip(rng.normal(COLORS[color], 12, (16, 16, 3)), 0, 255).astype(np.uint8)
        if size == "small":
            picture[:, 10:] = 0
        r, g, b = picture.mean((0, 1)).round(3).tolist()
        caption = f"a {size} {color} square, number {i}"
        part = "test" if 4 * i >= 3 * n else "train"
        made.append({"picture": picture, "r": r, "g": g, "b": b, "caption": caption, "label": color, "split": part})
    return made


def table(path: Path, made: list[dict[str, Any]], **changed: list[Any]) -> Path:
    """They as a .jsonl file, with pictures beside it, and columns put in or in the place of others."""
    with path.open("w", encoding="utf-8") as file:
        for i, row in enumerate(made):
            name = f"{i}.png"
            Image.fromarray(row["picture"]).save(path.parent / name)
            own = {key: value for key, value in row.items() if key != "picture"} | {"path": name}
            file.write(json.dumps(own | {key: values[i] for key, values in changed.items()}) + "\n")
    return path
