"""Near-duplicates among embeddings: pairs whose cosine is above a threshold, and the groups that they connect."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from nearfar.batch import MISSING

BLOCK = 2048
"""Rows and columns of the products that are held at a time."""
ROUNDING = 1e-6
"""By how much the cosine of two equal vectors may fall short of 1."""


@dataclass(frozen=True)
class Duplicates:
    """Of N rows. group: N, int64, the same for rows that near-duplicates connect, or MISSING.  nearest, cosine: N, the
    most similar other row among its near-duplicates, or MISSING.  across, across_cosine: N x P, the same among those of
    each of P other parts; of a row's own part MISSING."""

    group: Tensor
    nearest: Tensor
    cosine: Tensor
    across: Tensor
    across_cosine: Tensor


def near_duplicates(unit: Tensor, threshold: float, part: Tensor | None = None) -> Duplicates:
    """The rows whose cosine with another one is `threshold` or more.

    unit: N x D, of unit length.  part: N, int64, 0 to P - 1, such as a number for each split.
    All pairs are looked at, block by block: N x N / 2 products, and memory for a block and for some millions of pairs.
    """
    n = len(unit)
    parts = np.zeros(n, np.int64) if part is None else part.numpy()
    count = int(parts.max(initial=0)) + 1
    group = np.arange(n)
    best, across = _Best(n), _Best(n * count)
    for left in range(0, n, BLOCK):
        rows = unit[left : left + BLOCK]
        for top in range(left, n, BLOCK):
            columns = unit[top : top + BLOCK]
            cosine = rows @ columns.T
            if left == top:
                cosine.masked_fill_(torch.ones_like(cosine, dtype=torch.bool).tril_(), -1)
            if float(cosine.max()) < threshold - ROUNDING:
                continue
            i, j = (cosine >= threshold - ROUNDING).nonzero().T
            value = cosine[i, j].numpy()
            one, other = (i + left).numpy(), (j + top).numpy()
            group = _joined(group, one, other)
            apart = parts[one] != parts[other]
            for a, b in ((one, other), (other, one)):
                best.see(a, b, value)
                across.see((a * count + parts[b])[apart], b[apart], value[apart])
    _, number, size = np.unique(group, return_inverse=True, return_counts=True)
    alone = size[number] == 1
    number[~alone] = np.unique(number[~alone], return_inverse=True)[1]
    number[alone] = MISSING
    return Duplicates(torch.from_numpy(number), *best.tensors(), *(own.view(n, count) for own in across.tensors()))


class _Best:
    """The most similar partner so far, of each row or of each row in each part."""

    def __init__(self, rows: int) -> None:
        self.value, self.place = np.full(rows, -1, np.float32), np.full(rows, MISSING, np.int64)

    def see(self, at: np.ndarray, other: np.ndarray, value: np.ndarray) -> None:
        np.maximum.at(self.value, at, value)
        won = value == self.value[at]
        self.place[at[won]] = other[won]

    def tensors(self) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(self.place), torch.from_numpy(self.value)


def _joined(group: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Groups of which those of each pair are one."""
    n = len(group)
    graph = coo_array((np.ones(len(one), np.int8), (group[one], group[other])), shape=(n, n))
    return connected_components(graph, directed=False)[1][group]
