"""Images of bright rectangles on noise, with their masks and boxes, and a run that has seen them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nearfar.cli import main
from nearfar.files import replace_csv

COUNT = 18


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """images/*.png of 32 x 24, masks/*.png of instances, index.csv of path, mask and split, boxes.csv from 1."""
    folder = tmp_path_factory.mktemp("scenes")
    random = np.random.default_rng(0)
    rows, boxes = [["path", "mask", "split"]], [["path", "xmin", "ymin", "xmax", "ymax", "label"]]
    for part in ("images", "masks"):
        (folder / part).mkdir()
    for i in range(COUNT):
        image = random.integers(0, 60, (24, 32, 3))
        mask = np.zeros((24, 32), np.uint8)
        for k in range(2):
            height, width = random.integers(7, 10, 2)
            top, left = random.integers(0, 24 - height), 16 * k + random.integers(0, 16 - width)
            image[top : top + height, left : left + width, k] += 180
            mask[top : top + height, left : left + width] = k + 1
            boxes.append([f"images/{i:02}.png", left + 1, top + 1, left + width, top + height, ("red", "green")[k]])
        Image.fromarray(image.astype(np.uint8)).save(folder / f"images/{i:02}.png")
        Image.fromarray(mask).save(folder / f"masks/{i:02}.png")
        rows.append([f"images/{i:02}.png", f"masks/{i:02}.png", "test" if i % 3 == 0 else "train"])
    replace_csv(folder / "index.csv", iter(rows))
    replace_csv(folder / "boxes.csv", iter(boxes))
    return folder


@pytest.fixture(scope="session")
def run(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    flags = ["--encoder", "conv4", "--size", "16", "--epochs", "1", "--batch", "8", "--probe-every", "0"]
    assert main(["train", "simclr", str(scenes / "index.csv"), *flags, "--out", str(out)]) == 0
    return out
