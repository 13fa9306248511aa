"""Where the inputs of a step come from, and when."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from nearfar.batch import pin
from nearfar.data.source import Source
from nearfar.method import derive_seed

AT_ONCE = 1e-3  # seconds: inputs that take longer are fetched ahead


class Feeder:
    """The inputs of each step, fetched one step ahead in a thread where that takes long: decoding hides behind the
    model. What lies in memory is quicker to take than a thread to wake.

    order: from an epoch's generator, the samples of all its steps.  mine: the rows of the global batch that are this
    rank's.
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
    ) -> None:
        self.data, self.batch, self.seed, self.mine = data, batch, seed, mine
        self.draw = order
        self.pin = device.type == "cuda"  # a copy from pinned memory does not wait for the device
        self.order: tuple[int, Tensor] | None = None
        self.ahead: tuple[int, Future[tuple[Any, ...]]] | None = None
        self.seconds = math.inf

    def __enter__(self) -> Feeder:
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="nearfar-feeder")
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.shutdown(cancel_futures=True)

    def rows(self, step: int) -> Tensor:
        """The samples of this rank in a step."""
        epoch, at = divmod(step, len(self.data) // self.batch)
        if self.order is None or self.order[0] != epoch:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch))
            self.order = epoch, self.draw(generator)
        return self.order[1][at * self.batch : (at + 1) * self.batch][self.mine]

    def fetch(self, rows: Tensor) -> tuple[Any, ...]:
        began = time.perf_counter()
        inputs = self.data.fetch(rows)
        self.seconds = time.perf_counter() - began
        return tuple(map(pin, inputs)) if self.pin else tuple(inputs)

    def __call__(self, step: int, *, more: bool) -> tuple[Tensor, tuple[Any, ...]]:
        rows = self.rows(step)
        ready = self.ahead is not None and self.ahead[0] == step
        inputs = self.ahead[1].result() if self.ahead is not None and ready else self.fetch(rows)
        if more and self.seconds > AT_ONCE:
            self.ahead = step + 1, self.thread.submit(self.fetch, self.rows(step + 1))
        return rows, inputs
