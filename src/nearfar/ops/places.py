"""Where cells of maps lie, and which of two views show the same place."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nearfar.errors import UserError


def cell_places(place: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """The middles of the cells of a square map in the sample, row by row of the map, N x S x 2; and the diagonals of
    cells there, N.

    place: N x 2 x 3, as `nearfar.batch.Batch.places` has it.  cells: S. Of a cell that is no rectangle in the sample
    the diagonal is the root of the mean square of both.
    Raises ValueError where so many cells are no square.
    """
    side = math.isqrt(cells)
    if side**2 != cells:
        raise UserError(f"places are known of square maps, and this encoder's have {cells} cells")
    at = (torch.arange(side, device=place.device, dtype=place.dtype) + 0.5) * 2 / side - 1
    down, across = torch.meshgrid(at, at, indexing="ij")
    grid = torch.stack((across, down, torch.ones_like(down))).flatten(1)  # 3 x S
    return (place @ grid).mT, place[:, :, :2].flatten(1).norm(dim=1) * 2 / side


def same_place(one: Tensor, other: Tensor, cells: int, within: float) -> Tensor:
    """Which cells of two views show the same place: N x S x S, bool.

    one, other: N x 2 x 3, of the two views.  within: how far apart their middles may be, in diagonals of the larger
    cell.
    """
    (a, size), (b, other_size) = cell_places(one, cells), cell_places(other, cells)
    far = (a[:, :, None] - b[:, None]).norm(dim=3)  # N x S x S
    return far < within * torch.maximum(size, other_size)[:, None, None]
