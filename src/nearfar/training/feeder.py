"""Where the inputs of a step come from, and when."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nearfar.batch import pin
from nearfar.data.source import Source
from nearfar.errors import Lost
from nearfar.method import derive_seed
from nearfar.training.lost import StandIns

AT_ONCE = 1e-3  # seconds: inputs that take longer are fetched ahead


class Fed(NamedTuple):
    """What a rank gets for a step. rows: its samples.  inputs: of them.  twice: whether one of them is there twice,
    because it stands in for another."""

    rows: Tensor
    inputs: tuple[Any, ...]
    twice: bool


class Feeder:
    """The inputs of each step, fetched one step ahead in a thread where that takes long: decoding hides behind the
    model. What lies in memory is quicker to take than a thread to wake.

    order: from an epoch's generator, the samples of all its steps.  mine: the rows of the global batch that are this
    rank's.  lost: samples that can be read no more: see `StandIns`.  read: from inputs and the step, what the views
    want of them, where inputs are not read before that is known (`nearfar.data.source.Views`).
    """

    def __init__(
        self,
        data: Source,
        *,
        batch: int,
        seed: int,
        mine: slice,
        device: torch.device,
        order: Callable[[torch.Generator], Tensor],
        lost: dict[int, tuple[str, str]] | None = None,
        read: Callable[[tuple[Any, ...], int], tuple[Any, ...]] | None = None,
    ) -> None:
        self.data, self.batch, self.seed, self.read = data, batch, seed, read
        self.stand_ins = StandIns(data, {} if lost is None else lost, seed=seed, mine=mine)
        self.draw = order
        self.pin = device.type == "cuda"  # a copy from pinned memory does not wait for the device
        self.order: tuple[int, Tensor] | None = None
        self.ahead: tuple[int, Future[Fed]] | None = None
        self.seconds = math.inf

    def __enter__(self) -> Feeder:
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="nearfar-feeder")
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.shutdown(cancel_futures=True)

    def rows(self, step: int) -> Tensor:
        """The samples of a step, on all ranks."""
        epoch, at = divmod(step, len(self.data) // self.batch)
        if self.order is None or self.order[0] != epoch:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch))
            self.order = epoch, self.draw(generator)
        return self.order[1][at * self.batch : (at + 1) * self.batch]

    def fetch(self, step: int, rows: Tensor) -> Fed:
        began = time.perf_counter()
        while True:
            mine, twice = self.stand_ins.filled(rows, step)
            try:
                inputs = self.data.fetch(mine)
                inputs = inputs if self.read is None else self.read(inputs, step)
                break
            except Lost as lost:
                self.stand_ins.note({int(mine[k]): what for k, what in lost.at.items()})
        self.seconds = time.perf_counter() - began
        return Fed(mine, tuple(map(pin, inputs)) if self.pin else tuple(inputs), twice)

    def __call__(self, step: int, *, more: bool) -> Fed:
        """Raises TooManyLost where too many samples can be read no more."""
        rows = self.rows(step)
        ready = self.ahead is not None and self.ahead[0] == step
        fed = self.ahead[1].result() if self.ahead is not None and ready else self.fetch(step, rows)
        if more and self.seconds > AT_ONCE:
            self.ahead = step + 1, self.thread.submit(self.fetch, step + 1, self.rows(step + 1))
        return fed
