"""A queue beside the batch, and the slow copy of the network that fills it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.memory.queue import Queue
from nearfar.method import Method
from nearfar.nn.momentum import MomentumPair
from nearfar.ranges import PositiveInt, UnitInterval, checked


class SlowQueue(Queue):
    """A queue of what a slow copy of encoder and projector made of earlier views, for a loss that contrasts the batch.

    momentum: of the copy.  labeled: as in `Queue`.
    """

    @checked
    def __init__(
        self,
        size: PositiveInt,
        dim: PositiveInt,
        encoder: Any,
        projector: nn.Module,
        *,
        momentum: UnitInterval,
        labeled: bool = False,
    ) -> None:
        super().__init__(size, dim, labeled=labeled)
        self.slow, self.momentum = MomentumPair(encoder, projector), momentum

    @torch.no_grad()
    def embed(self, method: Method, views: Sequence[Any]) -> list[Tensor]:
        """What the copy makes of each view: V of N x dim, unit rows."""
        return method.project_all(views, self.slow.encoder, self.slow.projector)

    def update(self, method: Any, keys: list[Tensor], batch: Batch) -> None:
        """After a step: move the copy, and put in the keys of each view."""
        self.slow.follow(method, self.momentum)
        for rows in keys:  # one view after the other, so that the order is that of one process
            self.enqueue(rows, batch.group, batch.label)
