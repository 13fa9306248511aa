"""The trunk of BigGAN's discriminator (Brock et al. 2019, arXiv 1809.11096), an encoder without batch norm."""

from __future__ import annotations

import inspect
import math
from itertools import pairwise

from torch import Tensor, nn

from nearfar.nn.biggan import Attention
from nearfar.nn.spectral import spectral


class Down(nn.Module):
    """A residual block, which may halve the side. The first one begins without ReLU."""

    def __init__(self, before: int, after: int, down: bool, first: bool) -> None:
        super().__init__()
        self.one = spectral(nn.Conv2d(before, after, 3, padding=1))
        self.two = spectral(nn.Conv2d(after, after, 3, padding=1))
        self.skip = spectral(nn.Conv2d(before, after, 1)) if down or before != after else nn.Identity()
        self.pool, self.first = nn.AvgPool2d(2) if down else nn.Identity(), first

    def forward(self, x: Tensor) -> Tensor:
        inner = self.two(self.one(x if self.first else x.relu()).relu())
        skip = self.skip(self.pool(x)) if self.first else self.pool(self.skip(x))
        return self.pool(inner) + skip


class Summed(nn.Module):
    """ReLU, and the sum over all places: N x C x H x W -> N x C."""

    def forward(self, x: Tensor) -> Tensor:
        return x.relu().sum((2, 3))


def trunk(channels: int, size: int, width: int) -> nn.Sequential:
    """All of it up to the representation, N x channels x size x size -> N x dim: 2 width up to 32 px, else 16 width.

    size: in pixels, 8 or more. The number of blocks goes by it.
    """
    halvings = 2 if size <= 32 else int(math.log2(size)) - 2
    widths = [2 * width] * 4 if size <= 32 else [width * min(2**i, 16) for i in range(halvings + 1)]
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(pairwise((channels, *widths))):
        layers.append(Down(before, after, down=i < halvings, first=i == 0))
        if i == 0 and size >= 16:
            layers.append(Attention(after))
    return nn.Sequential(*layers, Summed())


def source(net: nn.Sequential) -> list[str]:
    """The lines of Python that build it as `net` from torch alone."""
    lines = ["from torch import Tensor, nn", "from torch.nn import functional as F"]
    lines += ["from torch.nn.utils.parametrizations import spectral_norm as spectral"]
    for part in (Attention, Down, Summed):
        lines += ["", "", *inspect.getsource(part).splitlines()]
    made = []
    for layer in net:
        if isinstance(layer, Down):
            one = layer.one
            down = isinstance(layer.pool, nn.AvgPool2d)
            made.append(f"Down({one.in_channels}, {one.out_channels}, down={down}, first={layer.first})")
        else:
            made.append(f"Attention({layer.query.in_channels})" if isinstance(layer, Attention) else "Summed()")
    return [*lines, "", "", f"net = nn.Sequential({', '.join(made)})"]
