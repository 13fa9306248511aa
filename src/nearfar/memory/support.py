"""What a sample is written from: a mixture of others, those of the batch and those of past steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.distributed import columns, gather
from nearfar.errors import UserError
from nearfar.losses.support import Mode, support_weights
from nearfar.memory.queue import Queue
from nearfar.nn.towers import Reading
from nearfar.ranges import NonNegativeInt, PositiveFloat, PositiveInt, checked


class Support(nn.Module):
    """The support sets of a batch (arXiv 2010.02824), and what is mixed of them.

    dim: of the rows.  mode, temperature: see `support_weights`.  size: of a bank of the newest rows of all ranks, which
    are candidates as they were, without gradient; 0 for none.
    """

    @checked
    def __init__(self, dim: PositiveInt, mode: Mode, temperature: PositiveFloat, size: NonNegativeInt = 0) -> None:
        super().__init__()
        if size and mode == "identity":
            raise UserError(f"a bank of {size} is of no use to mode identity, in which each sample reads itself alone")
        self.mode: Mode = mode
        self.temperature = temperature
        self.bank = Queue(size, dim, labeled=True) if size else None

    def forward(self, t: Tensor, v: Tensor, batch: Batch, maps: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What is read for each sample: N x M x width; and how much of each candidate: N x K, without gradient.

        t, v: N x D, unit rows of the side that is written, and of the other.  maps: N x M x width, which are mixed in
        the place of v, where M is 1.  A sample is not among the others of itself, nor is what the bank holds of it,
        nor what is of its group: see mode "cross".
        """
        keys = gather(v)
        read = keys[:, None] if maps is None else gather(maps)
        apart = [(own, gather(own)) for own in (batch.index, batch.group) if own is not None]
        if self.bank is not None:
            filled = min(int(self.bank.count), len(self.bank.keys))
            past = self.bank.keys[:filled].to(keys.dtype)
            keys, read = torch.cat([keys, past]), torch.cat([read, past[:, None]])
            held = (self.bank.label[:filled], self.bank.group[:filled])
            apart = [(own, torch.cat([every, old])) for (own, every), old in zip(apart, held, strict=False)]
        weight = support_weights(t, keys, mode=self.mode, temperature=self.temperature, own=columns(t), apart=apart)
        return (weight @ read.flatten(1)).unflatten(1, read.shape[1:]), weight.detach()

    def keep(self, v: Tensor, index: Tensor, group: Tensor | None) -> None:
        """Put rows (N x D) of samples and their groups into the bank, if there is one: after a step."""
        if self.bank is not None:
            self.bank.enqueue(v, group, index)


def supports(reading: Reading, mode: Mode, temperature: float, size: int) -> nn.ModuleDict:
    """A `Support` for each side that is read. Raises ValueError for a bank where maps are read: it holds rows."""
    if size and reading.maps:
        raise UserError(f"--bank {size} holds a row of each sample, and --maps reads many: leave one of the two out")
    return nn.ModuleDict({name: Support(reading.dim, mode, temperature, size) for name in reading.others})
