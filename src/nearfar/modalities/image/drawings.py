"""Omniglot's handwritten characters, packed with nearfar: real data for a first run, with nothing to download.

Each of 901 characters of 28 alphabets was drawn by 20 people. A drawing's name is alphabet/character/drawer, and a
number of a drawer means one person within an alphabet only. Lake, Salakhutdinov and Tenenbaum, Human-level concept
learning through probabilistic program induction, Science 350 (2015) 1332-1338; see drawings.LICENSE.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from nearfar.errors import UserError
from nearfar.modalities.image.samples import Images, open_images


def drawings(part: Literal["train", "test"] = "train") -> Images:
    """Drawings of 32 x 32 pixels, one channel, ink high, labeled with their character.

    train: 13,180 drawings of the 659 characters of 20 alphabets.  test: 4,840 drawings of the 242 characters of 8 other
    alphabets, so that no character is in both.
    """
    if part not in ("train", "test"):
        raise UserError(f"The drawings have the parts 'train' and 'test', not {part!r}.")
    with files("nearfar.modalities.image").joinpath("drawings.npz").open("rb") as file, np.load(file) as packed:
        pairs = packed[f"{part}_pixels"]  # N x 512
        character, drawer, classes = (packed[f"{part}_{key}"] for key in ("character", "drawer", "names"))
    pixels = np.stack([pairs >> 4, pairs & 15], axis=2).reshape(-1, 32, 32) * np.uint8(17)  # N x 32 x 32
    images = open_images(pixels)
    images.label, images.classes = torch.from_numpy(character.astype(np.int64)), classes.tolist()
    images.names = [f"{classes[c]}/{d:02d}" for c, d in zip(character, drawer, strict=True)]
    images.split = [part] * len(images)
    return images


def alphabets(images: Images) -> list[str]:
    """The alphabet of each drawing."""
    return [name.split("/")[0] for name in images.names]


def drawers(images: Images) -> Tensor:
    """The drawer of each drawing, 0 to 19 within its alphabet: N, int64."""
    return torch.tensor([int(name.rsplit("/", 1)[1]) for name in images.names])
