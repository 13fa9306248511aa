"""A first-in first-out store of recent keys with as many slots for every class, the same on every rank."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nearfar.batch import MISSING
from nearfar.distributed import gather, normalize
from nearfar.memory.turns import turns
from nearfar.ranges import PositiveInt, checked


class ClassQueue(nn.Module):
    """The newest `slots` keys of each class, of all ranks; class c owns the rows from c * slots on (arXiv 2203.11506).

    It starts full of random unit rows, drawn from torch's global generator: ranks seeded alike hold alike. Keys of
    rare classes stay for long.
    """

    keys: Tensor  # classes * slots x dim, unit rows
    group: Tensor  # classes * slots, int64, of the sample that each key is of, or MISSING
    label: Tensor  # classes * slots, int64, the class that owns a row: no state
    count: Tensor  # classes, how many keys of each were ever put in

    @checked
    def __init__(self, classes: PositiveInt, slots: PositiveInt, dim: PositiveInt) -> None:
        super().__init__()
        self.slots = slots
        self.register_buffer("keys", normalize(torch.randn(classes * slots, dim)))
        self.register_buffer("group", torch.full((classes * slots,), MISSING))
        self.register_buffer("label", torch.arange(classes).repeat_interleave(slots), persistent=False)
        self.register_buffer("count", torch.zeros(classes, dtype=torch.long))

    @torch.no_grad()
    def enqueue(self, keys: Tensor, label: Tensor, group: Tensor | None = None) -> None:
        """Put in the keys (N x dim) of every rank, in rank order, where their labels say; those without are left out.

        label: N, int64, or MISSING.  group: N, if there are any.
        """
        keys, label = gather(keys.detach()).to(self.keys.dtype), gather(label)
        group = torch.full_like(label, MISSING) if group is None else gather(group)
        new = torch.bincount(label[label >= 0], minlength=len(self.count))  # classes
        place = turns(label)  # among those of its class
        kept = (label >= 0) & (place >= new[label] - self.slots)  # of more than fit the last
        label, place = label[kept], place[kept]
        slot = label * self.slots + (self.count[label] + place) % self.slots
        self.keys[slot], self.group[slot] = keys[kept], group[kept]
        self.count += new
