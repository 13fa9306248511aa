"""How little two rows' neighborhoods have in common: a distance that re-ranking and re-identification trust more."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nearfar.errors import UserError

TRIPLES = 1 << 20
"""Common neighbors that are held at a time; the products of a block of rows with all rows take no more."""


class Pairs(NamedTuple):
    """Distances of pairs, i before j, each row's own among them.  size: N.  i, j: int64.  distance: 0 to 1."""

    size: int
    i: Tensor
    j: Tensor
    distance: Tensor


@torch.no_grad()
def jaccard(x: Tensor, *, k1: int = 30, k2: int = 6, limit: float = 1.0) -> Pairs:
    """The k-reciprocal Jaccard distance of N unit rows, of all pairs that are no farther apart than `limit`.

    1. R(i) are the rows that are among the k1 nearest of i, and have i among theirs; a row is its own nearest.
    2. For each j in R(i), the rows R'(j), made likewise with half of k1 besides j itself, join R*(i) if more than two
       thirds of them are in R(i).
    3. V_i is a softmax of minus the squared distance from i, over R*(i).
    4. V_i becomes the mean of V over the k2 nearest of i.
    5. The distance of i and j is  1 - m / (2 - m),    m = sum_g min(V_ig, V_jg).

    x: N x D. Memory is linear in N, but for a block of rows with all, and for what is kept: below 1, only rows that
    share neighbors. Zhong et al. 2017, arXiv 1701.08398; k1 counts the row itself, as in SpCL's code (2006.02713).
    """
    n = len(x)
    if x.dim() != 2 or k1 < 1 or k2 < 1:
        raise UserError(f"rows of shape {tuple(x.shape)}, k1 {k1}, k2 {k2}; wanted N x D, and 1 neighbor or more")
    near = _nearest(x, min(k1, n))  # N x k1
    i, j = _reciprocal(near)
    half_i, half_j = _reciprocal(near[:, : (k1 + 1) // 2 + 1])
    i, j = _expanded(n, (i, j), (half_i, half_j))
    weight = -(x[i] - x[j]).square().sum(1)
    weight = (weight - _most(n, i, weight)[i]).exp()
    weight = weight / weight.new_zeros(n).index_add_(0, i, weight)[i]
    if k2 > 1:
        i, j, weight = _averaged(near[:, :k2], i, j, weight)
    return _compared(n, i, j, weight, limit)


def _nearest(x: Tensor, k: int) -> Tensor:
    """Of each row the k nearest, itself first: N x k."""
    nearest = []
    for rows in torch.arange(len(x), device=x.device).split(max(1, TRIPLES // len(x))):
        likeness = x[rows] @ x.T
        likeness[torch.arange(len(rows), device=x.device), rows] = torch.inf
        nearest.append(likeness.topk(k).indices)
    return torch.cat(nearest)


def _reciprocal(near: Tensor) -> tuple[Tensor, Tensor]:
    """The pairs in which each is among the other's neighbors, by i, the nearest first."""
    n = len(near)
    i, j = torch.arange(n, device=near.device).repeat_interleave(near.shape[1]), near.flatten()
    both = torch.isin(i * n + j, j * n + i)
    return i[both], j[both]


def _expanded(n: int, wide: tuple[Tensor, Tensor], half: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Of each row the neighbors of its neighbors besides, where most of them are its own: pairs, by i and j."""
    i, j = wide
    codes = (i * n + j).sort().values
    size = torch.bincount(half[0], minlength=n)  # |R'(j)|
    pieces = [codes]
    for part in _parts(size[j]):
        which, at = _joined(j[part], size)
        code = i[part][which] * n + half[1][at]
        inside = torch.isin(code, codes, assume_unique=False)
        common = torch.bincount(which, weights=inside.double(), minlength=len(i[part]))
        joins = 3 * common > 2 * size[j[part]]
        pieces.append(code[joins[which]].unique())
    every = torch.cat(pieces).unique()
    return every // n, every % n


def _averaged(near: Tensor, i: Tensor, j: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The mean of the rows of the sparse matrix (i, j, weight) over each row's neighbors: likewise, by i and j."""
    n, k = near.shape
    size = torch.bincount(i, minlength=n)
    out: list[tuple[Tensor, Tensor]] = []
    for rows in _parts(size[near].sum(1)):
        which, at = _joined(near[rows].flatten(), size)
        code, place = ((which // k + rows.start) * n + j[at]).unique(return_inverse=True)
        out.append((code, weight.new_zeros(len(code)).index_add_(0, place, weight[at] / k)))
    code, weight = (torch.cat(column) for column in zip(*out, strict=True))
    return code // n, code % n, weight


def _compared(n: int, i: Tensor, j: Tensor, weight: Tensor, limit: float) -> Pairs:
    """The distances of the rows of a sparse matrix whose entries stand by i: those up to `limit`."""
    order = (j * n + i).argsort()
    having, value = i[order], weight[order]  # column by column, the rows that have an entry in it
    size = torch.bincount(j, minlength=n)  # of the columns
    start = torch.searchsorted(i, torch.arange(n + 1, device=i.device))  # of the rows
    work = torch.zeros(n, dtype=torch.long, device=i.device).index_add_(0, i, size[j])
    within: list[tuple[Tensor, Tensor, Tensor]] = []
    for rows in _parts(work + n):
        entries = slice(int(start[rows.start]), int(start[rows.stop]))
        which, at = _joined(j[entries], size)
        least = torch.minimum(weight[entries].index_select(0, which), value.index_select(0, at))
        cell = ((i[entries] - rows.start) * n).index_select(0, which) + having.index_select(0, at)
        common = weight.new_zeros((rows.stop - rows.start) * n).index_add_(0, cell, least).view(-1, n)
        distance = (1 - common / (2 - common)).clamp(min=0)
        row, column = (distance <= limit).nonzero(as_tuple=True)
        within.append((row + rows.start, column, distance[row, column]))
    return Pairs(n, *(torch.cat(column) for column in zip(*within, strict=True)))


def _joined(key: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Each key with each entry of its segment, where segments of these sizes lie one after the other.

    Gives, for every such pair, the place of the key and the place of the entry.
    """
    times = size.index_select(0, key)
    which = torch.arange(len(key), device=key.device).repeat_interleave(times)
    first = (size.cumsum(0) - size).index_select(0, key) - (times.cumsum(0) - times)
    # index_select: several times as fast as brackets, and this is called for some ten million pairs
    return which, first.index_select(0, which) + torch.arange(len(which), device=key.device)


def _parts(work: Tensor) -> list[slice]:
    """Neighboring rows whose work adds up to no more than TRIPLES, unless one row alone has more."""
    cuts, total = [0], 0
    for row, amount in enumerate(work.tolist()):
        total += amount
        if total > TRIPLES and row > cuts[-1]:
            cuts.append(row)
            total = amount
    return [slice(a, b) for a, b in zip(cuts, [*cuts[1:], len(work)], strict=True)]


def _most(n: int, i: Tensor, value: Tensor) -> Tensor:
    return value.new_full((n,), -torch.inf).scatter_reduce_(0, i, value, "amax")
