"""Images that are the same, or nearly: to be kept out of each other's negatives, and on one side of a split."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import MISSING
from nearfar.data.digests import digest
from nearfar.evaluation.knn import neighbors
from nearfar.modalities.examination import Copies
from nearfar.modalities.image.samples import Images

THUMB, LOOK = 12, 32
"""Sides in pixels: of the thumbnails by which candidates are found, and of the images that are then compared."""

ALIKE = 0.97
"""Correlation of near duplicates, of all pixels and colors at that size."""

LEVELS = 6.0
"""Their mean difference at most, of 255."""


def duplicates(images: Images, *, neighborhood: int = 8) -> Copies:
    """Find copies: the same pixels, or the same image at another size, quality or slightly other brightness.

    Mirrored, turned and cropped copies are not found. Each image is compared with its `neighborhood` nearest by
    thumbnail, so that a set of copies is found as a chain of any length.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(images)
    pairs: list[Tensor] = []
    known: dict[str, int] = {}
    first_of, small = [], []
    for rows in torch.arange(n).split(512):
        pixels = images.pixels(rows).cpu()
        small.append(_reduced(pixels, THUMB))
        for row, image in zip(rows.tolist(), pixels, strict=True):
            first = known.setdefault(digest(image.contiguous().numpy().tobytes()), row)
            first_of.append(first)
            if first != row:
                pairs.append(torch.tensor([[row, first]]))
    thumbs = torch.cat(small)
    if n > 1:
        thumbs = thumbs - thumbs.mean(1, keepdim=True)
        _, near = neighbors(thumbs, thumbs, min(neighborhood, n - 1), exclude_self=True)
        rows = torch.arange(n)[:, None].expand_as(near).flatten()
        both = torch.stack([rows, near.flatten()], 1)
        both = both[both[:, 0] < both[:, 1]]
        both = both[_close(thumbs[both[:, 0]], thumbs[both[:, 1]], ALIKE - 0.05)]
        for some in both.split(4096):
            a, b = (_reduced(images.pixels(side).cpu(), LOOK) for side in some.unbind(1))
            different = (a - b).abs().mean(1) * 255
            same_shape = (images.aspect[some[:, 0]] / images.aspect[some[:, 1]]).log().abs() < 0.05
            a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
            pairs.append(some[_close(a, b, ALIKE) & (different <= LEVELS) & same_shape])
    edges = torch.cat([*pairs, torch.empty(0, 2, dtype=torch.int64)]).numpy()
    graph = coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(n, n))
    number = torch.from_numpy(connected_components(graph, directed=False)[1]).long()
    return Copies(_sets(number), _sets(torch.tensor(first_of, dtype=torch.int64)))


def _sets(number: Tensor) -> Tensor:
    """Numbers of sets of several samples, from 0, and MISSING for a sample alone. number: N, of each sample's set."""
    _, place, size = number.unique(return_inverse=True, return_counts=True)
    several = size > 1
    return torch.where(several[place], (several.cumsum(0) - 1)[place], MISSING)


def _reduced(pixels: Tensor, side: int) -> Tensor:
    """Images reduced to so many pixels a side, in [0, 1]: n x C side side."""
    return F.interpolate(
        pixels.float() / 255, (side, side), mode="bilinear", antialias=True, align_corners=False
    ).flatten(1)


def _close(a: Tensor, b: Tensor, least: float) -> Tensor:
    """Whether rows of mean 0 correlate so far; rows without any contrast do with each other."""
    flat = (a.norm(dim=1) < 1e-3) & (b.norm(dim=1) < 1e-3)
    return (F.cosine_similarity(a, b) >= least) | flat
