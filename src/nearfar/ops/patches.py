"""Patches of images: smaller images cut from the cells of a grid, in order or shuffled.

Views come as floats, N x C x H x W, and patches as N x P x C x S x S, in reading order. All chance is drawn for the
global batch from a generator that is the same on every rank, and cut to this rank's rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nearfar.distributed import local, world
from nearfar.errors import UserError
from nearfar.precision import network

LEAST = 16
"""The smallest side of a patch in pixels, below which networks for small images have nothing left to pool."""


def cut(
    view: Tensor,
    grid: int,
    *,
    share: float = 1.0,
    overlap: float = 0.0,
    side: int = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The patches of a grid of cells, in reading order: N x C x H x W -> N x grid**2 x C x S x S.

    share: side of a patch over that of its cell; where in the cell it lies is drawn for each patch from `generator`
        (without one: the middle).  overlap: of neighboring cells, as a share of their side.
    side: of the patches that are returned, in pixels; 0 leaves them as they are cut, but never smaller than `LEAST`.
    """
    if grid < 1 or not 0 < share <= 1 or not 0 <= overlap < 1:
        raise UserError(f"wanted a grid of 1 or more, 0 < share <= 1 and 0 <= overlap < 1, got {grid, share, overlap}")
    n, height, width = len(view), *view.shape[2:]
    if min(height, width) < grid:
        raise UserError(f"images of {height} x {width} px have no {grid} x {grid} cells: take a smaller grid")
    cells = [max(1, int(whole / (1 + (grid - 1) * (1 - overlap)))) for whole in (height, width)]
    sizes = [max(1, round(cell * share)) for cell in cells]
    place = drawn(n, grid**2, 2, generator=generator) if generator else torch.full((n, grid**2, 2), 0.5)
    y, x = (
        (_starts(whole, cell, grid)[number] + (place[..., axis] * (cell - size + 1)).long())[..., None]
        + torch.arange(size)  # N x P x S
        for axis, (whole, cell, size, number) in enumerate(
            zip((height, width), cells, sizes, _rows_and_columns(grid), strict=True)
        )
    )
    row = torch.arange(n).view(-1, 1, 1, 1)
    row, y, x = (index.to(view.device) for index in (row, y[..., None], x[..., None, :]))
    out = view.movedim(1, -1)[row, y, x].movedim(-1, 2)  # N x P x C x S x S
    return resize(out, side or max(LEAST, *sizes))


def _rows_and_columns(grid: int) -> tuple[Tensor, Tensor]:
    cell = torch.arange(grid**2)
    return cell // grid, cell % grid


def _starts(whole: int, cell: int, grid: int) -> Tensor:
    return torch.linspace(0, whole - cell, grid).round().long()


def resize(patches: Tensor, side: int) -> Tensor:
    """Patches of another side, bilinearly: N x P x C x S x S -> N x P x C x side x side."""
    if patches.shape[-2:] == (side, side):
        return patches
    flat = F.interpolate(patches.flatten(0, 1), size=(side, side), mode="bilinear", antialias=True)
    return flat.unflatten(0, patches.shape[:2])


def alike(patches: Tensor, view: Tensor) -> Tensor:
    """Each patch with the mean and the spread of the whole view, per channel, so that its level tells no place.

    The jigsaw papers standardize each patch; to bring it back to the level of its image keeps the pixels what the
    encoder expects. A patch that is nearly flat stays so.
    """
    std, mean = torch.std_mean(patches, (3, 4), correction=0, keepdim=True)
    whole_std, whole_mean = torch.std_mean(view, (2, 3), correction=0, keepdim=True)
    scale = whole_std[:, None] / std.clamp(min=0.05)
    return (patches - mean) * scale + whole_mean[:, None]


def each_patch(network: Callable[[Tensor], Tensor], patches: Tensor) -> Tensor:
    """What a network makes of every patch: N x P x ... -> N x P x D.

    The first patches of all images pass first, then the second, as views do.
    """
    n, p = patches.shape[:2]
    return network(patches.transpose(0, 1).flatten(0, 1)).unflatten(0, (p, n)).transpose(0, 1)


class PatchHead(nn.Module):
    """One embedding of all patches: a network on each, their codes side by side, and a network on those.

    N x P x dim -> N x out. The jigsaw branch of arXiv 1603.09246, 1912.01991 and 2005.10243.
    """

    def __init__(self, each: nn.Module, whole: nn.Module) -> None:
        super().__init__()
        self.each, self.whole = each, whole

    @network
    def forward(self, codes: Tensor) -> Tensor:
        return self.whole(each_patch(self.each, codes).flatten(1))


def drawn(n: int, *shape: int, generator: torch.Generator) -> Tensor:
    """Uniform numbers for this rank's N samples, N x shape, drawn for those of all ranks."""
    return local(torch.rand(world() * n, *shape, generator=generator))


def orders(n: int, patches: int, *, generator: torch.Generator) -> Tensor:
    """A random order of so many patches for each of this rank's N samples: N x P, int64."""
    return drawn(n, patches, generator=generator).argsort(1)


def shuffle(patches: Tensor, order: Tensor) -> Tensor:
    """The patches in another order, which its argsort undoes: patch order[i, j] at place j, N x P x ... either way."""
    return patches[torch.arange(len(patches), device=patches.device)[:, None], order.to(patches.device)]


@cache
def permutations(patches: int, count: int) -> Tensor:
    """Orders of P patches that are far from each other: count x P, int64, all distinct, the first in order.

    Each is the one with the largest sum of Hamming distances to those before (arXiv 1603.09246, algorithm 1, which
    starts anywhere); of equals the first in lexicographic order. As many as there are, if `count` is more.
    """
    if not 1 <= patches <= 9 or count < 1:
        raise UserError(f"{count} orders of {patches} patches: wanted 1 or more, of 1 to 9 patches")
    every = _all_orders(patches).T.contiguous()  # P x P!
    count, chosen = min(count, every.shape[1]), [0]
    far = torch.zeros(every.shape[1], dtype=torch.int32)
    for _ in range(count - 1):
        for place in every:
            far += place != place[chosen[-1]]
        far[chosen[-1]] = -(2**30)
        chosen.append(int(far.argmax()))
    return every[:, chosen].T.long()


def _all_orders(patches: int) -> Tensor:
    """All permutations in lexicographic order, from the digits of their numbers in the factorial system."""
    number = torch.arange(math.factorial(patches))
    out = torch.zeros(len(number), 0, dtype=torch.int8)
    for place in range(1, patches + 1):  # from the last place to the first
        digit = (number // math.factorial(place - 1) % place).to(torch.int8)[:, None]
        out = torch.cat([digit, out + (out >= digit)], 1)
    return out
