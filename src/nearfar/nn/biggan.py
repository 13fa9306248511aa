"""BigGAN's generator (Brock et al. 2019, arXiv 1809.11096): residual blocks with spectral norm and batch norm that goes
by class and noise, and self-attention on the maps of half the side (arXiv 1805.08318)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nearfar.errors import UserError
from nearfar.nn.spectral import spectral
from nearfar.precision import network


class Attention(nn.Module):
    """Each place adds, by a learned factor that begins at 0, what it finds at others: N x C x H x W -> the same."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        inner, half = max(1, dim // 8), max(1, dim // 2)
        self.query, self.key = (spectral(nn.Conv2d(dim, inner, 1, bias=False)) for _ in range(2))
        self.value = spectral(nn.Conv2d(dim, half, 1, bias=False))
        self.out = spectral(nn.Conv2d(half, dim, 1, bias=False))
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        places = [F.max_pool2d(part(x), 2) for part in (self.key, self.value)]
        q, k, v = (part.flatten(2).transpose(1, 2) for part in (self.query(x), *places))  # N x places x dim
        found = F.scaled_dot_product_attention(q, k, v, scale=1.0).transpose(1, 2)
        return x + self.gamma * self.out(found.unflatten(2, x.shape[2:]))


class Up(nn.Module):
    """A residual block of the generator, which doubles the side; `code` says scale and shift of its batch norms."""

    def __init__(self, before: int, after: int, code: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.BatchNorm2d(width, affine=False) for width in (before, after)])
        self.scales, self.shifts = (
            nn.ModuleList([spectral(nn.Linear(code, width, bias=False)) for width in (before, after)]) for _ in range(2)
        )
        self.one = spectral(nn.Conv2d(before, after, 3, padding=1))
        self.two = spectral(nn.Conv2d(after, after, 3, padding=1))
        self.skip = spectral(nn.Conv2d(before, after, 1))

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        inner = self.one(F.interpolate(self._normalized(0, x, code), scale_factor=2))
        inner = self.two(self._normalized(1, inner, code))
        return inner + F.interpolate(self.skip(x), scale_factor=2)

    def _normalized(self, i: int, x: Tensor, code: Tensor) -> Tensor:
        scale, shift = (part[i](code)[:, :, None, None] for part in (self.scales, self.shifts))
        return ((1 + scale) * self.norms[i](x) + shift).relu()


class Generator(nn.Module):
    """Images from noise and classes: N x latent, N int64 -> N x channels x size x size in [0, 1].

    In place of the classes may stand shares of them, N x classes.

    classes: how many; 0 for images without a class.  width: 4 times as many channels at 32 px.  class_dim: width of the
    embedding of classes.  The noise is cut in parts, one for the first map and one for each block.
    Raises ValueError for a size that blocks which double the side do not reach.
    """

    def __init__(
        self, *, classes: int, channels: int, size: int, width: int, latent: int, class_dim: int = 128
    ) -> None:
        super().__init__()
        self.base, blocks = halvings(size)
        widths = [4 * width] * (blocks + 1) if blocks <= 3 else [width * min(2**i, 16) for i in range(blocks, -1, -1)]
        self.latent, self.part, self.first = latent, max(1, latent // (blocks + 1)), widths[0]
        self.classes = nn.Embedding(classes, class_dim) if classes else None
        if self.classes is not None:
            nn.init.orthogonal_(self.classes.weight)  # rows of norm 1: longer ones would drown the noise beside them
        self.start = spectral(nn.Linear(self.part, widths[0] * self.base**2))
        code = self.part + (class_dim if classes else 0)
        self.blocks = nn.ModuleList([Up(a, b, code) for a, b in pairwise(widths)])
        self.attention = Attention(widths[-2]) if blocks > 1 else None
        self.norm = nn.BatchNorm2d(widths[-1])
        self.last = spectral(nn.Conv2d(widths[-1], channels, 3, padding=1))

    @network
    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        parts = z.split(self.part, 1)
        x = self.start(parts[0]).view(len(z), self.first, self.base, self.base)
        x = x.contiguous(memory_format=torch.channels_last)
        known = []
        if self.classes is not None:
            known = [self.classes(label) if label.dim() == 1 else label @ self.classes.weight]
        for i, block in enumerate(self.blocks):
            x = block(x, torch.cat([parts[i + 1], *known], 1))
            if self.attention is not None and i == len(self.blocks) - 2:
                x = self.attention(x)
        return 0.5 + 0.5 * self.last(self.norm(x).relu()).tanh()

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Noise of n images, n x latent, and a class of each, all as likely; 0 where there are none."""
        z = torch.randn(n, self.latent, generator=generator)
        return z, torch.randint(1 if self.classes is None else self.classes.num_embeddings, (n,), generator=generator)

    @torch.no_grad()
    def measure(self, generator: torch.Generator, images: int = 1000, batch: int = 50) -> None:
        """Let the batch norms take the statistics of so many images, and go to eval mode: now images are made alone."""
        for norm in self.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.reset_running_stats()
                norm.momentum = None  # the mean over all batches
        self.train()
        for _ in range(images // batch):
            self(*self.draw(batch, generator))
        self.eval()


def halvings(size: int) -> tuple[int, int]:
    """The side of the first map, 4 to 7 px, and how often it is doubled."""
    side, count = size, 0
    while side > 7 and side % 2 == 0:
        side, count = side // 2, count + 1
    if not 4 <= side <= 7 or not count:
        raise UserError(
            f"images of {size} px cannot be generated, as no block doubles 4 to 7 px to that: --size 32 or 64"
        )
    return side, count
