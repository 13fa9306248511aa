"""CIE Lab of sRGB images: lightness apart from color, in steps that look alike. White is that of D65."""

from __future__ import annotations

import torch
from torch import Tensor

# The primaries of sRGB in XYZ, each row divided by its sum: white is (1, 1, 1).
_RGB_TO_XYZ = torch.tensor(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ],
    dtype=torch.float64,
)
_RGB_TO_XYZ /= _RGB_TO_XYZ.sum(1, keepdim=True)
_KNEE = 6 / 29


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """sRGB in [0, 1] to L in [0, 100], a and b in about -86 to 98 and -108 to 94: ... x 3 x H x W, either way."""
    linear = torch.where(rgb > 0.04045, ((rgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    f = _mixed(linear, _RGB_TO_XYZ)
    f = torch.where(f > _KNEE**3, f.clamp(min=_KNEE**3) ** (1 / 3), f / (3 * _KNEE**2) + 4 / 29)
    x, y, z = f.unbind(-3)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -3)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """The inverse of `rgb_to_lab`; what no screen can show lies outside [0, 1]: ... x 3 x H x W, either way."""
    light, a, b = lab.unbind(-3)
    y = (light + 16) / 116
    f = torch.stack([y + a / 500, y, y - b / 200], -3)
    xyz = torch.where(f > _KNEE, f**3, 3 * _KNEE**2 * (f - 4 / 29))
    linear = _mixed(xyz, torch.linalg.inv(_RGB_TO_XYZ))
    return torch.where(linear > 0.0031308, 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055, 12.92 * linear)


def _mixed(x: Tensor, matrix: Tensor) -> Tensor:
    return torch.einsum("ij,...jhw->...ihw", matrix.to(x), x)
