"""RandAugment beside torchvision's own."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode, RandAugment

from nearfar.modalities.image.plan import OPERATIONS
from nearfar.modalities.image.randaugment import STRONGEST, randaugment

from .test_views import images

NAMES = list(RandAugment._AUGMENTATION_SPACE)


def once(x: torch.Tensor, number: int, reverse: bool, magnitude: int) -> torch.Tensor:
    """What torchvision does to one image of bytes."""
    strengths, signed = RandAugment._AUGMENTATION_SPACE[NAMES[number]]
    values = strengths(STRONGEST + 1, *x.shape[-2:])
    value = 0.0 if values is None else float(values[magnitude])
    return RandAugment()._apply_image_or_video_transform(  # pyright: ignore[reportPrivateUsage]
        x, NAMES[number], -value if signed and reverse else value, interpolation=InterpolationMode.NEAREST, fill={}
    )


@pytest.mark.parametrize("magnitude", [0, 9, 30])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_each_operation_is_that_of_torchvision(magnitude: int, channels: int) -> None:
    assert len(NAMES) == OPERATIONS
    x = images(2 * OPERATIONS, channels, 24)
    x[:, :, :4] //= 3  # so that there is a contrast to stretch
    x = x // 2 + 20
    operations, reverse = torch.arange(OPERATIONS).repeat(2)[:, None], (torch.arange(28) < OPERATIONS)[:, None]
    found = randaugment(x / 255, operations, reverse, magnitude)
    for i, image in enumerate(x):
        parts = image[:, None] if channels == 5 else image[None]  # of five channels each by itself
        wanted = torch.cat([once(part, i % OPERATIONS, i < OPERATIONS, magnitude) for part in parts])
        assert torch.equal((255 * found[i]).round().byte(), wanted), NAMES[i % OPERATIONS]


def test_rounds_follow_one_another() -> None:
    x = images(6, 3, 16)
    which = torch.tensor([[5, 11], [11, 5], [0, 0], [2, 13], [8, 9], [3, 4]])
    reverse = torch.tensor([[True, False]]).repeat(6, 1)
    found = randaugment(x / 255, which, reverse, 12)
    for i, image in enumerate(x):
        for number, backward in zip(which[i].tolist(), (True, False), strict=True):
            image = once(image, number, backward, 12)
        assert torch.equal((255 * found[i]).round().byte(), image)
