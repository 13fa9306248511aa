"""A first-in first-out store of recent keys, the same on every rank."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nearfar.batch import MISSING
from nearfar.distributed import gather, normalize
from nearfar.ranges import PositiveInt, checked


class Queue(nn.Module):
    """The newest `size` keys of all ranks (MoCo, arXiv 1911.05722); with their labels, where it is `labeled`.

    It starts full of random unit rows, drawn from torch's global generator: ranks seeded alike hold alike.
    The slot that is written next is `count` modulo `size`. Any number of keys may be put in at once; the oldest give
    way, and of more keys than fit the last are kept.
    """

    keys: Tensor  # size x dim, unit rows
    group: Tensor  # size, int64, of the sample that each key is of, or MISSING
    count: Tensor  # (), how many keys were ever put in
    label: Tensor  # size, int64, or MISSING: of a labeled queue alone

    @checked
    def __init__(self, size: PositiveInt, dim: PositiveInt, *, labeled: bool = False) -> None:
        super().__init__()
        self.register_buffer("keys", normalize(torch.randn(size, dim)))
        self.register_buffer("group", torch.full((size,), MISSING))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        if labeled:
            self.register_buffer("label", torch.full((size,), MISSING))

    @torch.no_grad()
    def enqueue(self, keys: Tensor, group: Tensor | None = None, label: Tensor | None = None) -> None:
        """Put in the keys (N x dim) of every rank, in rank order; and their groups and labels (N), if there are any."""
        size = len(self.keys)
        keys = gather(keys.detach()).to(self.keys.dtype)
        surplus = max(len(keys) - size, 0)
        slots = (self.count + surplus + torch.arange(len(keys) - surplus, device=keys.device)) % size
        self.keys[slots] = keys[surplus:]
        self.group[slots] = MISSING if group is None else gather(group)[surplus:]
        if "label" in self._buffers:
            self.label[slots] = MISSING if label is None else gather(label)[surplus:]
        self.count += len(keys)

    @torch.no_grad()
    def drift(self, rows: int = 256) -> Tensor | None:
        """How far the encoder has moved since the oldest keys were made; None while there are too few keys to tell.

        The squared distance between the means of what the newest and the oldest keys are drawn from, without bias: 0
        where the two are alike, 2 where each are all one and at right angles to the others.
        """
        size, count = len(self.keys), int(self.count)
        rows = min(rows, min(count, size) // 2)
        if rows < 2:
            return None
        place = torch.arange(rows, device=self.keys.device)
        new = self.keys[(count - 1 - place) % size].float()
        old = self.keys[(max(count - size, 0) + place) % size].float()
        within = sum((x.sum(0).square().sum() - x.square().sum()) / (rows * (rows - 1)) for x in (new, old))
        return within - 2 * new.mean(0) @ old.mean(0)
