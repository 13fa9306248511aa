from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from nearfar.modalities.image.drawings import drawings
from nearfar.modalities.image.duplicates import duplicates
from nearfar.modalities.image.samples import open_images


def scene(seed: int, side: int = 96) -> Image.Image:
    """An image of colored blobs, unlike all others."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def planted(folder: Path) -> dict[str, str]:
    """40 images and copies of some; each copy's name and what it is of."""
    folder.mkdir()
    for seed in range(40):
        scene(seed).save(folder / f"{seed:02d}.png")
    copies = {}
    for number, (how, save) in enumerate(
        {
            "same": lambda x, f: x.save(f.with_suffix(".png")),
            "jpeg": lambda x, f: x.save(f.with_suffix(".jpg"), quality=60),
            "small": lambda x, f: x.resize((48, 48), Image.Resampling.LANCZOS).save(f.with_suffix(".png")),
            "bright": lambda x, f: ImageEnhance.Brightness(x).enhance(1.03).save(f.with_suffix(".png")),
        }.items()
    ):
        for seed in (3 * number, 3 * number + 1):
            save(scene(seed), folder / f"{how}-{seed}")
            copies[next(folder.glob(f"{how}-{seed}.*")).name] = f"{seed:02d}.png"
    scene(0).save(folder / "again-0.png")  # a third of the first
    return copies | {"again-0.png": "00.png"}


def test_planted_copies_are_found_and_none_invented(tmp_path: Path) -> None:
    copies = planted(tmp_path / "p")
    images = open_images(tmp_path / "p", size=64)
    found = duplicates(images)
    group = dict(zip(images.names, found.group.tolist(), strict=True))
    for copy, original in copies.items():
        assert group[copy] == group[original] != -1, copy
    together = {name for pair in copies.items() for name in pair}
    assert {name for name, number in group.items() if number != -1} == together
    assert (found.exact, found.near) == (3, 6)
    assert sorted(set(group.values())) == list(range(-1, 8))


@pytest.mark.parametrize("part", ["train", "test"])
def test_no_two_drawings_are_taken_for_one(part: str) -> None:
    found = duplicates(drawings(part).subset(range(2000)))
    assert (found.exact, found.near) == (0, 0)
    assert (found.group == -1).all()


def test_photographs_of_the_same_thing_are_not_copies(shared_data: Path) -> None:
    found = duplicates(open_images(shared_data / "cifar10_test.npz").subset(range(2000)))
    assert (found.exact, found.near) == (0, 0)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_images(n: int) -> None:
    array = np.stack([np.asarray(scene(0, 16))] * n)
    found = duplicates(open_images(array))
    assert found.group.tolist() == ([0] * n if n > 1 else [-1])
    assert (found.exact, found.near) == (n - 1, 0)


def test_blank_pages_are_copies_of_each_other_only() -> None:
    array = np.zeros((6, 16, 16, 3), np.uint8)
    array[3:] = np.stack([np.asarray(scene(seed, 16)) for seed in range(3)])
    assert duplicates(open_images(array)).group.tolist() == [0, 0, 0, -1, -1, -1]


def test_a_chain_longer_than_the_neighborhood_is_one_set() -> None:
    array = np.stack([np.asarray(scene(0, 16))] * 30 + [np.asarray(scene(1, 16))])
    found = duplicates(open_images(array), neighborhood=2)
    assert torch.equal(found.group, torch.tensor([0] * 30 + [-1]))
