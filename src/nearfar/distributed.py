"""The few collectives of the library, with gradients that are exact on any number of processes.

The convention: the loss of a step is the mean over the rows of all ranks. Each rank returns its *share*, such that the
mean of the shares is that loss and the mean of the ranks' gradients (which DDP takes) is its gradient. `gather` is
differentiable: its backward sums over the ranks, so that a row feels every rank that used it. No other file calls
torch.distributed. On one process every function is the identity and costs nothing.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from nearfar.errors import Elsewhere, UserError

BEAT = 0.5
"""Seconds between two signs of life of a rank."""
SILENT = 3.0
"""Seconds without one after which a rank is dead, where a connection has broken."""
GRACE = 6.0
"""Seconds that the main thread has to come out of its work when another rank has failed."""

_joined = count()
_passed = 0
"""How many stretches of work this rank has behind it: of all ranks the one with the fewest keeps the others waiting."""


def world() -> int:
    """The number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


@contextmanager
def processes(device: torch.device, timeout: float = 30.0) -> Iterator[None]:
    """Join the processes that `torchrun` or `accelerate launch` started; one process alone joins nothing.

    timeout: minutes that a rank may keep the others waiting.
    Within, all ranks end where one of them fails, dies or stalls: by Elsewhere, once the first rank of each machine has
    printed what happened, with the number of that rank; by `os._exit` where a rank cannot come out of its work.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    if "RANK" not in os.environ:
        raise UserError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']!r} and RANK is not set: start the ranks with torchrun"
        )
    number, ranks, join = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), next(_joined)
    limit = timedelta(minutes=timeout)
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    try:
        store, *_ = next(rendezvous("env://", timeout=limit))
    except RuntimeError as error:
        raise UserError(
            f"rank {number} of {ranks}: the ranks did not find each other at {os.environ.get('MASTER_ADDR')}:"
            f"{os.environ.get('MASTER_PORT')} within {timeout:g} minutes (--timeout): {str(error).splitlines()[0]}"
        ) from error
    # Of its own, as one client serves one thread at a time.
    with _Watch(PrefixStore(f"nearfar {join}", store.clone()), number, ranks, timeout) as watch:
        try:
            dist.init_process_group(
                "nccl" if device.type == "cuda" else "gloo",
                store=PrefixStore(f"group {join}", store),
                rank=number,
                world_size=ranks,
                timeout=limit + timedelta(minutes=1),  # the watch is to be first: it knows who is late
            )
            yield
        except BaseException as error:
            watch.conclude(error)
            raise
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()


class _Watch(threading.Thread):
    """Shows the other ranks that this one lives and how far it is, and ends it where one of them fails or stalls."""

    def __init__(self, store: Any, number: int, ranks: int, timeout: float) -> None:
        super().__init__(name="nearfar-watch", daemon=True)
        self.store, self.number, self.ranks, self.timeout = store, number, ranks, timeout
        self.over = threading.Event()
        self.beats = count()
        self.before: Any = None

    def __enter__(self) -> _Watch:
        if threading.current_thread() is threading.main_thread():
            # torchrun ends the others when a rank has died: by SIGTERM, before they can say why.
            self.before = signal.signal(signal.SIGTERM, _interrupt)
        self._beat()
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.over.set()
        if self.before is not None and kind is None:
            signal.signal(signal.SIGTERM, self.before)

    def run(self) -> None:
        late = 0.0
        lowest = -1
        while not self.over.wait(BEAT):
            try:
                self._beat()
                if self._failed() is None and self.number in (0, self.ranks - 1):
                    passed = [known[1] for known in self._all().values()]
                    waiting = len(passed) < self.ranks or min(passed) < max(passed)
                    # Beats are counted, not seconds: a job that was suspended has not stalled.
                    late = late + BEAT if waiting and min(passed) == lowest else 0.0
                    lowest = min(passed)
                    if late > 60 * self.timeout:
                        self._fail(self._who_stalls())
                if (failed := self._failed()) is not None:
                    if not self.over.wait(GRACE):
                        self._say(failed)
                        os._exit(2)
                    return
            except RuntimeError:  # the store is gone: the main thread's next collective fails too
                if not self.over.wait(GRACE):
                    self._print("the process that holds the job together (torchrun, or rank 0) has ended")
                    os._exit(2)
                return

    def conclude(self, error: BaseException) -> None:
        """Let all ranks know that this one fails, or find out which did. Raises Elsewhere, if it is not a bug's."""
        if self.before is not None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            if isinstance(error, UserError):
                self._fail(f"rank {self.number} of {self.ranks}: {error}")
            elif self._blame(error) is None:  # it fails by itself, and its traceback is wanted
                stopped = isinstance(error, KeyboardInterrupt | SystemExit)
                why = "was interrupted" if stopped else f"failed: {error!r}"
                failed = self._fail(f"rank {self.number} of {self.ranks} {why}")
                if stopped:
                    self._say(failed)
                else:
                    self._first_to_speak()
                return
            failed = self._failed()
            assert failed is not None
            self._say(failed)
        except RuntimeError:
            failed = "the process that holds the job together (torchrun, or rank 0) has ended"
            self._print(failed)
        raise Elsewhere(failed) from error

    def _blame(self, error: BaseException) -> str | None:
        """What another rank failed by, where an error that is none of the user's may come of it."""
        before, began = self._all(), time.monotonic()
        while (failed := self._failed()) is None and time.monotonic() - began < SILENT:
            time.sleep(BEAT / 5)
        if failed is not None:
            return failed
        after = self._all()
        dead = [
            i for i in range(self.ranks) if i != self.number and before.get(i, (-1, 0))[0] == after.get(i, (-1, 0))[0]
        ]
        return (
            self._fail(f"{_ranks(dead, self.ranks)} ended without a word: killed, perhaps for memory") if dead else None
        )

    def _beat(self) -> None:
        self.store.set(f"rank {self.number}", json.dumps([next(self.beats), _passed]))

    def _all(self) -> dict[int, tuple[int, int]]:
        """Of each rank that has joined, its beats and how far it is."""
        keys = {i: f"rank {i}" for i in range(self.ranks) if self.store.check([f"rank {i}"])}
        return {i: tuple(json.loads(self.store.get(key))) for i, key in keys.items()}

    def _who_stalls(self) -> str:
        known = self._all()
        if missing := [i for i in range(self.ranks) if i not in known]:
            return f"{_ranks(missing, self.ranks)} did not start within {self.timeout:g} minutes (--timeout)"
        least = min(passed for _, passed in known.values())
        late = [i for i, (_, passed) in known.items() if passed == least]
        return (
            f"{_ranks(late, self.ranks)} kept the others waiting for {self.timeout:g} minutes. If the work takes so "
            "long, give a longer --timeout (minutes)"
        )

    def _failed(self) -> str | None:
        return self.store.get("failed").decode() if self.store.check(["failed"]) else None

    def _fail(self, text: str) -> str:
        """Why the job ends: what the first rank says."""
        return self.store.compare_set("failed", "", text).decode()

    def _first_to_speak(self) -> bool:
        return self.store.add(f"spoken on {platform.node()}", 1) == 1

    def _say(self, text: str) -> None:
        """Print why the job ends, once on each machine."""
        if self._first_to_speak():
            self._print(text)

    def _print(self, text: str) -> None:
        print(f"nearfar: {text}", file=sys.stderr, flush=True)
        if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):  # torchrun shows it where it lists the failures
            with open(path, "w", encoding="utf-8") as file:
                json.dump({"message": text, "timestamp": int(time.time())}, file)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _ranks(which: list[int], ranks: int) -> str:
    """As the subject of a sentence."""
    return f"rank{'s' * (len(which) > 1)} {', '.join(map(str, which))} of {ranks}"


def passed() -> None:
    """Note that this rank has a stretch of work behind it. All ranks must note the same ones in the same order."""
    global _passed
    _passed += 1


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(world())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        # gloo has no reduce_scatter for every type, so the sum travels whole and each rank keeps its rows.
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(world())[rank()]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def gather(x: Tensor) -> Tensor:
    """The rows of all ranks, rank by rank: N x ... -> WN x .... Every rank must hold the same number of rows."""
    if world() == 1:
        return x
    passed()
    return _Gather.apply(x)  # pyright: ignore[reportReturnType]


def exchange(value: Any) -> list[Any]:
    """What each rank gives, rank by rank: anything that can be pickled, on the CPU, without gradient."""
    if world() == 1:
        return [value]
    passed()
    values: list[Any] = [None] * world()
    dist.all_gather_object(values, value)
    return values


def total(x: Tensor) -> Tensor:
    """The sum over the ranks, element by element; the gradient is summed too."""
    if world() == 1:
        return x
    passed()
    return _Sum.apply(x)  # pyright: ignore[reportReturnType]


def highest(x: Tensor) -> Tensor:
    """The maximum over the ranks, element by element, without gradient."""
    if world() == 1:
        return x
    passed()
    top = x.detach().clone()
    dist.all_reduce(top, dist.ReduceOp.MAX)
    return top


def share(values: Tensor, keep: Tensor | None = None) -> Tensor:
    """This rank's share of the mean of `values` (N) over all ranks, over the rows where `keep` (N, bool) holds.

    The mean of the shares over the ranks is the mean of all kept rows; 0 where none is kept.
    """
    if keep is None:
        return values.mean()
    kept = torch.where(keep, values, torch.zeros_like(values)).sum()
    count = total(keep.sum().to(values.dtype))
    return kept * world() / count.clamp(min=1)


def anywhere(flag: bool) -> bool:
    """True on every rank if `flag` is true on any: how ranks agree to stop or save at the same step."""
    if world() == 1:
        return flag
    passed()
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else "cpu"
    votes = torch.tensor(float(flag), device=device)
    dist.all_reduce(votes)
    return bool(votes > 0)


def barrier() -> None:
    """Wait for all ranks."""
    if world() > 1:
        passed()
        dist.barrier()


def local(x: Tensor) -> Tensor:
    """This rank's part of rows that stand for all ranks: WN x ... -> N x .... The inverse of `gather`."""
    return x.tensor_split(world())[rank()] if world() > 1 else x


def columns(rows: Tensor) -> Tensor:
    """Where this rank's rows stand among those that `gather` makes of them: N, int64."""
    return rank() * len(rows) + torch.arange(len(rows), device=rows.device)


def normalize(x: Tensor) -> Tensor:
    """Rows of unit length, in at least float32: ... x D."""
    return F.normalize(x.float() if x.dtype in (torch.float16, torch.bfloat16) else x, dim=-1)
