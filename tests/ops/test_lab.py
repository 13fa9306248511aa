from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nearfar.ops.lab import lab_to_rgb, rgb_to_lab


def image(*color: float) -> Tensor:
    return torch.tensor(color, dtype=torch.float64).view(1, 3, 1, 1)


# As published for sRGB and D65, to the rounding of the tables.
KNOWN = {
    (0, 0, 0): (0, 0, 0),
    (1, 1, 1): (100, 0, 0),
    (1, 0, 0): (53.24, 80.09, 67.20),
    (0, 1, 0): (87.73, -86.18, 83.18),
    (0, 0, 1): (32.30, 79.19, -107.86),
    (0.5, 0.5, 0.5): (53.39, 0, 0),
}


@pytest.mark.parametrize(("rgb", "lab"), KNOWN.items())
def test_known_colors(rgb: tuple[float, ...], lab: tuple[float, ...]) -> None:
    got = rgb_to_lab(image(*rgb))
    torch.testing.assert_close(got, image(*lab), atol=0.02, rtol=0)


def test_there_and_back() -> None:
    rgb = torch.rand(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rgb[0, :, 0] = 0.01  # below the knees of both curves
    torch.testing.assert_close(lab_to_rgb(rgb_to_lab(rgb)), rgb)
    torch.testing.assert_close(lab_to_rgb(rgb_to_lab(rgb.float())), rgb.float(), atol=1e-5, rtol=0)
    assert rgb_to_lab(rgb[0]).shape == (3, 8, 8)


def test_lightness_alone_is_gray() -> None:
    gray = lab_to_rgb(torch.tensor([30.0, 0, 0], dtype=torch.float64).view(1, 3, 1, 1)).flatten()
    torch.testing.assert_close(gray, gray[:1].expand(3))


def test_gradients_are_finite_at_black() -> None:
    rgb = torch.zeros(1, 3, 1, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.grad(rgb_to_lab(rgb).sum(), rgb)[0].isfinite().all()
