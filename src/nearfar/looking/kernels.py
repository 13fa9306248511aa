"""The filters of a network's first layer, as pictures."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nearfar.errors import UserError
from nearfar.method import Encoder
from nearfar.ops.lab import lab_to_rgb


def first_kernels(encoder: Encoder) -> list[Tensor]:
    """The weights of the first convolution that looks at several places, of each network that an encoder is made of:
    n x C x h x w.

    Raises ValueError where there is none.
    """
    try:
        networks: list[nn.Module] = list(encoder.streams())
    except UserError:
        networks = [encoder]
    found = [_first(network) for network in networks]
    if not (kernels := [weight for weight in found if weight is not None]):
        raise UserError("its network has no convolution, whose filters could be shown as pictures")
    return kernels


def _first(network: nn.Module) -> Tensor | None:
    """A convolution of one place alone, which only mixes channels, is passed over."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and max(layer.kernel_size) > 1:
            return layer.weight.detach().float()
    return None


def kernel_tiles(weight: Tensor) -> Tensor:
    """Filters as pictures: n x C x h x w -> tiles x h x w x 3, in [0, 1].

    Three channels are red, green and blue, and one is gray; a filter is scaled so that its lowest number is 0 and its
    highest 1. Two channels are the a and b of Lab at lightness 50, and 0 stays gray: the farthest number is 100. Of
    another C each channel is a gray tile of its own, n * C in all. A filter that is the same everywhere is mid-gray.
    A positive factor of a filter changes nothing.
    """
    n, channels, height, width = weight.shape
    if channels == 2:
        farthest = weight.abs().amax((1, 2, 3), keepdim=True)
        ab = torch.where(farthest > 0, 100 * weight / farthest, 0.0)
        lab = torch.cat([torch.full_like(ab[:, :1], 50.0), ab], 1)
        return lab_to_rgb(lab).clamp(0, 1).permute(0, 2, 3, 1)
    if channels != 3:
        weight = weight.reshape(n * channels, 1, height, width)
    low, high = weight.amin((1, 2, 3), keepdim=True), weight.amax((1, 2, 3), keepdim=True)
    scaled = torch.where(high > low, (weight - low) / (high - low), 0.5)
    return scaled.expand(-1, 3, -1, -1).permute(0, 2, 3, 1)


def strongest(weight: Tensor, count: int) -> Tensor:
    """The positions of the filters of the largest norm, n x C x h x w, in their order: `count` int64 at most."""
    return weight.flatten(1).norm(dim=1).topk(min(count, len(weight))).indices.sort().values


def grid(tiles: Tensor, side: int = 24) -> Tensor:
    """Tiles in a square, pixels enlarged, with clear gaps: n x h x w x 3 in [0, 1] -> H x W x 4, uint8.

    side: of a tile in the picture, about, in pixels.
    """
    n, height, width, _ = tiles.shape
    times = max(1, round(side / max(height, width)))
    large = tiles.mul(255).round().byte().repeat_interleave(times, 1).repeat_interleave(times, 2)
    opaque = torch.cat([large, torch.full_like(large[..., :1], 255)], 3)
    across = math.ceil(math.sqrt(n))
    down, gap = -(-n // across), 2
    sheet = opaque.new_zeros(down * across, large.shape[1] + gap, large.shape[2] + gap, 4)
    sheet[:n, gap:, gap:] = opaque
    sheet = sheet.unflatten(0, (down, across)).permute(0, 2, 1, 3, 4).flatten(2, 3).flatten(0, 1)
    return sheet[gap:, gap:]
