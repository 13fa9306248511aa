"""An invertible change of colors, pixel by pixel, that keeps volumes: a color space that can be learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ColorFlow(nn.Module):
    """Additive couplings of the three channels: N x 3 x H x W -> N x 3 x H x W, near the identity at first.

    In each layer one channel is shifted by a function of the two others at the same pixel, so that what was done can be
    undone, and the determinant of the Jacobian is 1: no channel can be emptied (NICE, arXiv 1410.8516).
    """

    def __init__(self, *, hidden: int = 16, layers: int = 6) -> None:
        super().__init__()
        self.shifts = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, 1, 1)) for _ in range(layers)
        )
        for shift in self.shifts:
            last = shift[-1]  # pyright: ignore[reportIndexIssue]
            nn.init.normal_(last.weight, std=0.01)
            nn.init.zeros_(last.bias)

    def forward(self, x: Tensor) -> Tensor:
        for number, shift in enumerate(self.shifts):
            x = _shifted(x, shift, number % 3, 1)
        return x

    def inverse(self, y: Tensor) -> Tensor:
        for number, shift in reversed(list(enumerate(self.shifts))):
            y = _shifted(y, shift, number % 3, -1)
        return y


def _shifted(x: Tensor, shift: nn.Module, channel: int, sign: int) -> Tensor:
    parts = list(x.split(1, 1))
    one = parts.pop(channel)
    parts.insert(channel, one + sign * shift(torch.cat(parts, 1)))
    return torch.cat(parts, 1)
