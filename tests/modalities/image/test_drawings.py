from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest
import torch

from nearfar.modalities.image.drawings import alphabets, drawers, drawings


@pytest.mark.parametrize(("part", "n", "characters", "count"), [("train", 13_180, 659, 20), ("test", 4_840, 242, 8)])
def test_the_parts_are_whole(part, n, characters, count):
    images = drawings(part)
    assert (len(images), len(images.classes), images.channels, images.side) == (n, characters, 1, 32)
    assert torch.bincount(images.label).tolist() == [20] * characters
    assert len(set(alphabets(images))) == count
    assert torch.bincount(drawers(images)).tolist() == [characters] * 20
    assert set(images.split) == {part}
    assert len(set(images.names)) == n
    assert all(images.classes[c].startswith(a) for c, a in zip(images.label, alphabets(images), strict=True))
    pixels = images.pixels(torch.arange(n))
    assert pixels.unique().tolist() == list(range(0, 256, 17))
    assert pixels.float().mean() < 64  # ink is high, and the less of the two


def test_no_character_is_in_both_parts():
    assert not set(alphabets(drawings("train"))) & set(alphabets(drawings("test")))


def test_a_subset_keeps_alphabet_and_drawer():
    images = drawings("test")
    part = images.subset([4000, 25])
    assert alphabets(part) == [alphabets(images)[4000], alphabets(images)[25]]
    assert drawers(part)[1] == drawers(images)[25] == 5


def test_another_part_is_an_error():
    with pytest.raises(ValueError, match="'train' and 'test', not 'val'"):
        drawings("val")  # pyright: ignore[reportArgumentType]


def test_the_packed_file_is_small_and_its_license_lies_beside_it():
    packed = files("nearfar.modalities.image").joinpath("drawings.npz").read_bytes()
    assert len(packed) < 3_000_000
    assert (
        "Copyright (c) 2015 Brenden Lake" in files("nearfar.modalities.image").joinpath("drawings.LICENSE").read_text()
    )


def test_the_packed_drawings_are_those_of_the_source(shared_data):
    source = np.load(shared_data / "omniglot.npz")
    for part, name in (("train", "evaluation"), ("test", "background")):
        images = drawings(part)
        pixels = images.pixels(torch.arange(len(images)))[:, 0]
        assert np.array_equal(pixels, source[f"{name}_x32"])
        assert np.array_equal(images.label, source[f"{name}_identity"])
        assert np.array_equal(drawers(images), source[f"{name}_writer"])
        assert images.classes == source[f"{name}_names"].tolist()
