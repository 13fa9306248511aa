"""Whether the same place of an image is found again in another crop of it. No label is used."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

SIDES = (0.5, 0.8)
"""Of crops, in shares of the shorter side of the image."""

SHARED = 0.25
"""The share of the first crop that lies in the second, at least."""

NEAR = 1.0
"""Cells by which the place that is found may be off, along either side."""


def crops(extents: Sequence[tuple[int, int]], generator: torch.Generator) -> Tensor:
    """Two squares in each image that share some of it: N x 2 x 3, top, left and side, in pixels of the view.

    extents: rows and columns that each image takes of its view.
    """
    made = []
    for height, width in extents:
        while True:
            u = torch.rand(2, 3, generator=generator)
            side = (SIDES[0] + (SIDES[1] - SIDES[0]) * u[:, 0]) * min(height, width)
            box = torch.stack([u[:, 1] * (height - side), u[:, 2] * (width - side), side], 1)
            low, high = box[:, :2].amax(0), (box[:, :2] + side[:, None]).amin(0)
            if float((high - low).clamp(min=0).prod()) >= SHARED * float(side[0]) ** 2:
                break
        made.append(box)
    return torch.stack(made)


def cut(view: Tensor, boxes: Tensor) -> Tensor:
    """A square of each image, as large as the view: N x C x S x S.  boxes: N x 3, as `crops` gives them."""
    side = view.shape[-1]
    at = (torch.arange(side) + 0.5) / side  # in shares of the square
    y, x = (boxes[:, k, None] + at * boxes[:, 2, None] for k in (0, 1))  # N x S, in pixels
    grid = torch.stack([x[:, None].expand(-1, side, -1), y[:, :, None].expand(-1, -1, side)], 3) * (2 / side) - 1
    return F.grid_sample(view, grid, mode="bilinear", padding_mode="border", align_corners=False)


def found_again(one: Tensor, other: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Of each image the share of the cells of its first crop that lie in the second, and whose nearest cell there, by
    cosine, is the true one or beside it; and the share that a cell at random would have: N each, NaN where none lies.

    one, other: maps of the two crops, N x C x h x w each.  boxes: N x 2 x 3, as `crops` gives them. From each channel
    its mean over the cells of both crops is taken away.
    """
    height, width = one.shape[2:]
    both = torch.stack([one, other], 1).flatten(3)  # N x 2 x C x cells
    both = F.normalize(both - both.mean((1, 3), keepdim=True), dim=2)
    nearest = (both[:, 0].transpose(1, 2) @ both[:, 1]).argmax(2)  # N x cells
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = []
    for k, (cell, count) in enumerate(((y, height), (x, width))):  # where each cell of the first lies in the second
        at = boxes[:, 0, k, None] + (cell.flatten() + 0.5) / count * boxes[:, 0, 2, None]
        places.append((at - boxes[:, 1, k, None]) / boxes[:, 1, 2, None] * count - 0.5)
    true_y, true_x = places
    inside = (true_y > -0.5) & (true_y < height - 0.5) & (true_x > -0.5) & (true_x < width - 0.5)
    hit = ((nearest // width - true_y).abs() <= NEAR) & ((nearest % width - true_x).abs() <= NEAR)
    near_y, near_x = (
        ((torch.arange(count) - true[..., None]).abs() <= NEAR).double().mean(2)
        for true, count in ((true_y, height), (true_x, width))
    )
    count = inside.sum(1).double()
    share = (hit & inside).sum(1) / count
    return share, (near_y * near_x * inside).sum(1) / count
