"""Maps of a network, as pictures in colors that can be compared."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.ops.explanation import to_one

INFERNO = ((0, 0, 4), (40, 11, 84), (101, 21, 110), (159, 42, 99), (212, 72, 66), (245, 125, 21), (250, 193, 39))
"""The color map of Smith and van der Walt, without its lightest end: lightness rises in even steps."""


def pca_colors(maps: Tensor, size: int) -> Tensor:
    """Maps as colors by their first three principal components: N x C x H x W -> N x 3 x size x size, in [0, 1].

    The components are fitted over all places of all N maps, so that a color means the same in each of them: red, green
    and blue are the first, second and third. The sign of a component is that by which its largest loading is positive.
    Each is scaled by its 1st and 99th percentile; one that does not vary is 0.5.
    """
    n, channels, height, width = maps.shape
    rows = maps.detach().cpu().double().movedim(1, 3).reshape(-1, channels)  # NHW x C
    rows = rows - rows.mean(0)
    axes = torch.linalg.svd(rows, full_matrices=False).Vh[:3]  # 3 x C, or fewer
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    places = rows @ (axes * largest.sign()).T  # NHW x 3
    some = places[:: max(1, len(places) // 100_000)]
    low, high = torch.quantile(some, some.new_tensor([0.01, 0.99]), dim=0)
    varied = high - low > 1e-6 * maps.abs().max()
    colors = torch.full((len(rows), 3), 0.5)
    colors[:, : len(axes)] = torch.where(varied, (places - low) / (high - low), 0.5).clamp(0, 1).float()
    picture = colors.unflatten(0, (n, height, width)).movedim(3, 1)
    return F.interpolate(picture, (size, size), mode="bilinear", align_corners=False)


def inferno(level: Tensor) -> Tensor:
    """Levels from 0 to 1 as colors, dark to light: N x H x W -> N x 3 x H x W, in [0, 1]."""
    place = level.clamp(0, 1) * (len(INFERNO) - 1)
    low = place.long().clamp(max=len(INFERNO) - 2)
    share = (place - low)[..., None]
    colors = torch.tensor(INFERNO, dtype=torch.float32, device=level.device) / 255
    return (colors[low] * (1 - share) + colors[low + 1] * share).movedim(3, 1)


def laid_over(picture: Tensor, maps: Tensor) -> Tensor:
    """A map in colors over a picture, which shows through in gray: N x 3 x H x W.

    picture: N x 3 x H x W, in [0, 1].  maps: N x h x w, each of which is brought to the size of the picture (bilinear)
    and scaled by itself, from its lowest place to its highest; one that is the same everywhere is dark.
    """
    fine = F.interpolate(maps[:, None].float(), picture.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    return 0.4 * picture.mean(1, keepdim=True) + 0.6 * inferno(to_one(fine))
