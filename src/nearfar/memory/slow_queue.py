"""A queue beside the batch, and the slow copy of the network that fills it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.distributed import normalize
from nearfar.memory.queue import Queue
from nearfar.method import Method
from nearfar.nn.momentum import follow, momentum_copy


class SlowQueue(Queue):
    """A queue of what a slow copy of encoder and projector made of earlier views, for a loss that contrasts the batch.

    momentum: of the copy.  labeled: as in `Queue`.
    """

    def __init__(
        self, size: int, dim: int, encoder: Any, projector: nn.Module, *, momentum: float, labeled: bool = False
    ) -> None:
        super().__init__(size, dim, labeled=labeled)
        self.encoder, self.projector, self.momentum = momentum_copy(encoder), momentum_copy(projector), momentum

    @torch.no_grad()
    def made(self, method: Method, views: list[Any]) -> list[Tensor]:
        """What the copy makes of each view: V of N x dim, unit rows."""
        z = self.projector(method.embed(torch.cat(views), self.encoder))  # VN x dim
        return list(normalize(z).chunk(len(views)))

    def follow(self, encoder: nn.Module, projector: nn.Module) -> None:
        """Move the copy, after a step."""
        follow(self.encoder, encoder, self.momentum)
        follow(self.projector, projector, self.momentum)

    def write(self, made: list[Tensor], batch: Batch) -> None:
        """Put in the keys of each view."""
        for keys in made:  # one view after the other, so that the order is that of one process
            self.enqueue(keys, batch.group, batch.label)
