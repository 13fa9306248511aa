"""How well the class of each pixel can be told from maps, by a linear discriminant in closed form.

Maps are upsampled bilinearly to the pixels of a mask. As that is linear, and along rows and columns apart, the sums
over pixels that the discriminant is made of are had from the cells of the maps, exactly, and no upsampled map is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nearfar.batch import MISSING

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)
"""Of the ridge, in units of the variance of a standardized channel."""

PRIORS = (0.0, 0.5, 1.0)
"""How far a class that has more pixels is favored: not at all, by the root of its share, by its share."""

MOST = 1 << 22
"""Scores of classes at pixels that are held at a time."""


def sampled(cells: int, taken: float, pixels: int) -> Tensor:
    """What bilinear upsampling does along one side: pixels x cells, each row of which sums to 1.

    taken: how many of the cells the image takes, from the first; the others, which are padding, count for nothing.
    """
    last = max(0, min(cells, -int(-taken // 1)) - 1)
    at = ((torch.arange(pixels) + 0.5) * (taken / pixels) - 0.5).clamp(0, last)
    low = at.floor().long().clamp(max=last)
    share = at - low
    matrix = torch.zeros(pixels, cells)
    row = torch.arange(pixels)
    matrix[row, low] += 1 - share
    matrix[row, (low + 1).clamp(max=last)] += share
    return matrix


@dataclass(frozen=True)
class Grid:
    """How the maps of one image reach the pixels of its mask. rows, columns: of each depth, pixels x cells."""

    rows: list[Tensor]
    columns: list[Tensor]

    @classmethod
    def of(cls, maps: Sequence[Tensor], extent: tuple[int, int], side: int, shape: tuple[int, int]) -> Grid:
        """maps: of a square of `side` pixels, each C x h x w, of which the image takes `extent`, rows and columns.
        shape: of the mask."""
        rows = [sampled(m.shape[1], m.shape[1] * extent[0] / side, shape[0]) for m in maps]
        return cls(rows, [sampled(m.shape[2], m.shape[2] * extent[1] / side, shape[1]) for m in maps])

    def upsampled(self, depth: int, x: Tensor) -> Tensor:
        """What lies in the cells of a depth, C x h x w, at the pixels: C x H x W."""
        return self.rows[depth] @ x @ self.columns[depth].T

    def gathered(self, depth: int, y: Tensor) -> Tensor:
        """Its transpose: H x W at the pixels to h x w in the cells."""
        return self.rows[depth].T @ y @ self.columns[depth]


@dataclass
class Sums:
    """Sums over the pixels of some images, each of which weighs as much as any other.

    square: D x D, of x x^T.  own: K x D, of x by class.  count: K, pixels by class.
    """

    square: Tensor
    own: Tensor
    count: Tensor

    @classmethod
    def zero(cls, dim: int, classes: int) -> Sums:
        f64 = torch.float64
        return cls(
            torch.zeros(dim, dim, dtype=f64), torch.zeros(classes, dim, dtype=f64), torch.zeros(classes).double()
        )

    def __iadd__(self, other: Sums) -> Sums:
        self.square += other.square
        self.own += other.own
        self.count += other.count
        return self


def sums(maps: Sequence[Tensor], grid: Grid, mask: Tensor, classes: int) -> Sums:
    """The sums over the pixels of one image, divided by their number.

    maps: each C x h x w, D channels in all.  mask: H x W, the class of each pixel, or MISSING.
    """
    known = mask != MISSING
    total = int(known.sum())
    if not total:
        return Sums.zero(sum(len(m) for m in maps), classes)
    count = torch.bincount(mask[known], minlength=classes).double()
    own = torch.zeros(classes, sum(len(m) for m in maps))
    for c in count.nonzero()[:, 0].tolist():
        target = (mask == c).float()
        own[c] = torch.cat([torch.einsum("yx,cyx->c", grid.gathered(d, target), m) for d, m in enumerate(maps)])
    blocks: list[list[Tensor]] = [[torch.empty(0)] * len(maps) for _ in maps]
    for a, one in enumerate(maps):
        for b in range(a, len(maps)):  # the deeper has fewer cells, on which the product is cheaper
            left = grid.rows[b].T @ grid.rows[a] @ one @ (grid.columns[a].T @ grid.columns[b])
            blocks[a][b] = left.flatten(1) @ maps[b].flatten(1).T
            blocks[b][a] = blocks[a][b].T
    square = torch.cat([torch.cat(row, 1) for row in blocks])
    if total < mask.numel():
        at = (~known).nonzero()
        for rows in at.split(4096):  # what the grid counted and must not
            x = torch.cat(
                [
                    torch.einsum("pi,cij,pj->pc", grid.rows[d][rows[:, 0]], m, grid.columns[d][rows[:, 1]])
                    for d, m in enumerate(maps)
                ],
                1,
            )
            square = square - x.T @ x
    return Sums(square.double() / total, own.double() / total, count / total)


@dataclass(frozen=True)
class Discriminant:
    """weight: D x K.  bias: K; -inf for a class that was never seen."""

    weight: Tensor
    bias: Tensor

    def scores(self, maps: Sequence[Tensor], grid: Grid) -> Tensor:
        """Of each class at each pixel, K x H x W, but for the bias."""
        total, start = torch.zeros(()), 0
        for d, m in enumerate(maps):
            weight = self.weight[start : start + len(m)]
            start += len(m)
            total = total + grid.upsampled(d, torch.einsum("ck,cij->kij", weight, m))
        return total

    def named(self, maps: Sequence[Tensor], grid: Grid, biases: Sequence[Tensor] = ()) -> list[Tensor]:
        """The class that each pixel is taken for, H x W, by each of some biases: by default by its own. Large masks are
        done some rows at a time."""
        biases = biases or [self.bias]
        strip = max(1, MOST // (len(self.bias) * len(grid.columns[0])))
        parts: list[list[Tensor]] = [[] for _ in biases]
        for start in range(0, len(grid.rows[0]), strip):
            rows = Grid([own[start : start + strip] for own in grid.rows], grid.columns)
            scores = self.scores(maps, rows)
            for own, bias in zip(parts, biases, strict=True):
                own.append((scores + bias[:, None, None]).max(0).indices)  # argmax takes ten times as long
        return [torch.cat(own) for own in parts]


def discriminant(of: Sums, strength: float, prior: float, first: int = 0) -> Discriminant:
    """The classes' linear discriminant, regularized by a ridge: for two classes that is ridge regression on their
    numbers, with another threshold.

    strength: added to the variance within classes, of channels that have 1 over all.  prior: the power of the share of
    a class that counts as its prior.  first: channels before it are left out.
    """
    square, own, count = of.square[first:, first:], of.own[:, first:], of.count
    n = count.sum()
    seen = count > 0
    mean = own.sum(0) / n
    deviation = (square.diagonal() / n - mean.square()).clamp(min=0).sqrt()
    factor = torch.where(deviation > 1e-6 * mean.abs().clamp(min=1e-6), 1 / deviation, 0)
    center = torch.where(seen[:, None], own / count.clamp(min=1e-300)[:, None], 0) - mean  # K x D
    within = square / n - mean[:, None] * mean - (center.T * (count / n)) @ center
    within = within * factor[:, None] * factor
    within.diagonal().add_(strength)
    center = center * factor
    weight = torch.linalg.solve(within, center.T)  # D x K
    bias = -0.5 * (weight * center.T).sum(0) + prior * (count / n).clamp(min=1e-300).log()
    weight = weight * factor[:, None]
    bias = torch.where(seen, bias - mean @ weight, -torch.inf)
    return Discriminant(weight.float(), bias.float())


def confusion(named: Tensor, mask: Tensor, classes: int) -> Tensor:
    """Pixels by their class, and by the class that they were taken for: classes x classes, float64. MISSING in the mask
    counts for nothing."""
    known = mask != MISSING
    return torch.bincount(mask[known] * classes + named[known], minlength=classes**2).view(classes, classes).double()


def overlaps(counts: Tensor) -> tuple[Tensor, Tensor]:
    """The intersection over union, and Dice, of each class: ... x K each; NaN for one that no pixel has.

    counts: ... x K x K, as `confusion` gives them.
    """
    both, true, taken = counts.diagonal(dim1=-2, dim2=-1), counts.sum(-1), counts.sum(-2)
    there = true > 0
    iou = torch.where(there, both / (true + taken - both).clamp(min=1), torch.nan)
    return iou, torch.where(there, 2 * both / (true + taken).clamp(min=1), torch.nan)
