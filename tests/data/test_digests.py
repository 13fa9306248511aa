from __future__ import annotations

import torch

from nearfar.data.digests import digests, fingerprint
from nearfar.modalities.image.samples import open_images
from tests.tiny import tiny_images


def test_digests_know_a_sample_by_its_contents() -> None:
    array = tiny_images(8)
    first, second = digests(open_images(array)), digests(open_images(array[::-1].copy()))
    assert first == second[::-1]
    assert len(set(first)) == 8


def test_a_fingerprint_changes_with_samples_order_and_labels() -> None:
    images, label = tiny_images(8), torch.arange(8) % 2
    variants = [(images, label), (images[::-1].copy(), label), (images[:7], label[:7]), (images, 1 - label)]
    opened = [open_images((array, names.numpy())) for array, names in variants]
    assert len({fingerprint(digests(data), data) for data in opened}) == len(variants)
