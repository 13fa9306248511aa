from __future__ import annotations

import dataclasses

import torch

from nearfar.data.digests import digests, fingerprint
from nearfar.data.samples import LEARNED
from nearfar.modalities.image.samples import open_images
from tests.tiny import tiny_images


def test_digests_know_a_image_by_its_pixels() -> None:
    array = tiny_images(8)
    first, second = digests(open_images(array)), digests(open_images(array[::-1].copy()))
    assert first == second[::-1]
    assert len(set(first)) == 8


def test_a_fingerprint_changes_with_samples_order_and_labels() -> None:
    images, label = tiny_images(8), torch.arange(8) % 2
    variants = [(images, label), (images[::-1].copy(), label), (images[:7], label[:7]), (images, 1 - label)]
    opened = [open_images((array, names.numpy())) for array, names in variants]
    assert len({fingerprint(digests(data), data) for data in opened}) == len(variants)


def test_samples_are_found_by_their_split() -> None:
    data = dataclasses.replace(open_images(tiny_images(4)), split=["", "train", "test", "val"])
    assert data.of_split(*LEARNED).tolist() == [True, True, False, False]
    assert data.of_split("test").tolist() == [False, False, True, False]
    assert data.subset([]).of_split("test").dtype == torch.bool


def test_samples_of_an_array_are_numbered_until_some_are_taken_out() -> None:
    data = open_images(tiny_images(4))
    assert data.numbered
    assert data.subset([0, 1]).numbered
    assert not data.subset([1, 2]).numbered
