from __future__ import annotations

import colorsys

import pytest
import torch
from torch import Tensor

from nearfar.evaluation.corruptions import SEVERITIES, corrupt

every_name = pytest.mark.parametrize("name", SEVERITIES)


def images(n: int = 4, channels: int = 3, side: int = 32) -> Tensor:
    """Smooth colors with edges, in 8 bits."""
    at = torch.linspace(0, 6, side)
    waves = 0.5 + 0.3 * torch.sin(at[:, None] * torch.arange(1, n * channels + 1).view(n, channels, 1, 1) / 2 + at)
    waves[:, :, side // 3 : side // 2] += 0.2
    return (255 * waves.clamp(0, 1)).round() / 255


@every_name
@pytest.mark.parametrize("channels", [1, 3])
def test_the_more_severe_the_further(name: str, channels: int) -> None:
    x = images(channels=channels)
    far = []
    for severity in range(1, 6):
        spoilt = corrupt(x, name, severity)
        assert spoilt.shape == x.shape
        assert spoilt.dtype == x.dtype
        assert 0 <= spoilt.min() <= spoilt.max() <= 1
        torch.testing.assert_close((255 * spoilt).round() / 255, spoilt)
        assert torch.equal(corrupt(x, name, severity), spoilt)
        far.append(float((spoilt - x).square().mean()))
    assert far[0] > 0
    assert far == sorted(far) or name == "pixelate"  # where pixels fall on edges decides too
    assert far[4] > far[0]


@every_name
def test_a_image_of_its_own(name: str) -> None:
    x = images()
    torch.testing.assert_close(corrupt(x[:2], name, 3), corrupt(x, name, 3)[:2])


def test_noise_has_its_deviation_and_its_seed() -> None:
    x = torch.full((8, 3, 32, 32), 0.5)
    spoilt = corrupt(x, "noise", 5, seed=1)
    assert float((spoilt - x).std()) == pytest.approx(0.1, rel=0.02)
    assert not torch.equal(spoilt, corrupt(x, "noise", 5, seed=2))
    assert not torch.equal(spoilt[0], spoilt[1])


def test_contrast_shrinks_around_the_mean_of_each_channel() -> None:
    x = torch.tensor([0.2, 0.6]).view(1, 1, 1, 2)
    torch.testing.assert_close(corrupt(x, "contrast", 2), torch.tensor([0.3, 0.5]).view(1, 1, 1, 2), atol=2e-3, rtol=0)


def test_brightness_is_that_of_hsv() -> None:
    colors = [(0.2, 0.4, 0.6), (0.9, 0.1, 0.5), (0.0, 0.0, 0.0), (1.0, 0.5, 0.0)]
    x = torch.tensor(colors).T[None, :, :, None]
    spoilt = corrupt(x, "brightness", 4)[0, :, :, 0].T
    for before, after in zip(colors, spoilt.tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before)
        assert after == pytest.approx(colorsys.hsv_to_rgb(hue, saturation, min(1, value + 0.2)), abs=2e-3)


def test_blur_is_a_mean_with_gaussian_weights() -> None:
    x = torch.zeros(1, 1, 15, 15)
    x[0, 0, 7, 7] = 1
    tap = torch.exp(-0.5 * torch.arange(-7, 8) ** 2.0)
    weights = tap[:, None] * tap / tap.sum() ** 2
    torch.testing.assert_close(corrupt(x, "blur", 5)[0, 0], weights, atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", ["blur", "contrast", "pixelate", "jpeg"])
def test_one_color_has_nothing_to_lose(name: str) -> None:
    x = torch.full((1, 3, 32, 32), 100 / 255)
    torch.testing.assert_close(corrupt(x, name, 5), x, atol=1.1 / 255, rtol=0)


def test_pixels_become_few() -> None:
    x = torch.rand(1, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    spoilt = corrupt(x, "pixelate", 5)[0, 0]
    rows = int((spoilt[1:] != spoilt[:-1]).any(1).sum()) + 1
    assert rows == 26  # 0.65 of 40


def test_what_there_is_not_is_named() -> None:
    with pytest.raises(ValueError, match="there are noise, blur"):
        corrupt(images(), "snow", 1)
    with pytest.raises(ValueError, match="severity 6"):
        corrupt(images(), "noise", 6)
    with pytest.raises(ValueError, match="of 1 or 3 channels, got 4 x 2 x 32 x 32"):
        corrupt(images()[:, :2], "noise", 1)
