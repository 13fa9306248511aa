"""THE loop. It knows no method, no modality and no file format but its own.

Everything random is derived: the order of an epoch from (seed, epoch); the draws of the views from (seed, step), for
the global batch, so that they do not depend on the number of processes; whatever else a step draws, from (seed, step,
rank). A checkpoint therefore needs only the step to continue bit for bit, in the middle of an epoch too.
"""

from __future__ import annotations

import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from nearfar import distributed
from nearfar.batch import Batch
from nearfar.checkpoints import Checkpoints
from nearfar.journal import Journal
from nearfar.method import Clock, Method, mix
from nearfar.optim import scale_rates

Precision = Literal["float32", "bf16", "fp16"]
DRAIN = 50  # steps between two reads of the numbers from the device: each read makes it wait
LINE = 10  # steps that share a line of the journal
AT_ONCE = 1e-3  # seconds: inputs that take longer are fetched ahead


class Source(Protocol):
    """Training samples: N of them, known by position."""

    label: Tensor  # N int64, or MISSING
    group: Tensor  # N int64, or MISSING

    def __len__(self) -> int: ...
    def fetch(self, index: Tensor) -> tuple[Any, ...]:
        """The inputs of some samples, in the form in which the views take them."""
        ...


class Viewer(Protocol):
    """What turns inputs into views, by draws that were made for the whole global batch."""

    def draw(self, n: int, generator: torch.Generator) -> Any: ...

    __call__: Callable[..., list[Any]]


class Diverged(ArithmeticError):
    """The loss or a parameter is no longer a finite number."""


@dataclass(kw_only=True)
class Loop:
    """How to train: what `fit` is told besides the method, the data and the views.

    epochs, batch: passes over the data; samples in a step on all ranks together.
    schedule: factor on each group's learning rate, from (step, steps).
    clip: largest gradient norm, or None.  save_every: epochs between checkpoints.
    probe: numbers about the encoder, taken after every `probe_every` epochs; the highest "knn" marks the best
        checkpoint.
    watch: called with (step, steps, numbers) whenever numbers are read.
    """

    epochs: int
    batch: int
    schedule: Callable[[int, int], float]
    seed: int = 0
    precision: Precision = "float32"
    clip: float | None = None
    journal: Journal | None = None
    checkpoints: Checkpoints | None = None
    save_every: float = 1.0
    probe: Callable[[], dict[str, float]] | None = None
    probe_every: int = 1
    watch: Callable[[int, int, dict[str, float]], None] = field(default=lambda step, steps, numbers: None)
    say: Callable[[str], None] = print


def fit(method: Method, data: Source, views: Viewer, optimiser: torch.optim.Optimizer, loop: Loop) -> bool:
    """Train `method` in place, from the newest checkpoint if there is one. True when done, False when told to stop.

    Raises Diverged when the loss or a parameter stops being finite; the last finite checkpoint stays.
    """
    device = next(method.parameters()).device
    ranks, rank = distributed.world(), distributed.rank()
    if loop.batch % ranks or not ranks <= loop.batch <= len(data):
        raise ValueError(f"a batch of {loop.batch} of {len(data)} samples cannot be shared by {ranks} processes")
    per_epoch = len(data) // loop.batch
    steps = loop.epochs * per_epoch
    mine = slice(rank * loop.batch // ranks, (rank + 1) * loop.batch // ranks)
    scaler = torch.amp.GradScaler(device.type, enabled=loop.precision == "fp16")
    half = torch.float16 if loop.precision == "fp16" else torch.bfloat16
    start, best = _restore(method, optimiser, scaler, loop)
    log = _Log(loop, method, per_epoch, steps)

    def save(step: int, improved: bool = False) -> None:
        log.drain(step)
        _insist_finite(method, step, loop)  # on every rank, so that none waits for one that has given up
        if loop.checkpoints is not None and rank == 0:
            state = {"step": step, "best": best, "method": method.state_dict(), "optimiser": optimiser.state_dict()}
            loop.checkpoints.save(step, state | {"scaler": scaler.state_dict()}, best=improved)
        distributed.barrier()

    if start < 0:
        start = 0
        save(0)
    else:
        loop.say(f"Going on from step {start:,} of {steps:,}.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.15 renames the argument to one that 2.11 lacks
        net = DistributedDataParallel(method, broadcast_buffers=False) if ranks > 1 else method
    method.train()
    trained = [p for p in method.parameters() if p.requires_grad]
    with _stop_requested() as stop, _Feeder(data, loop, mine, device) as feed, loop.checkpoints or nullcontext():
        done = start
        for step in range(start, steps):
            epoch = step // per_epoch
            method.clock = Clock(step, steps, epoch, loop.epochs, loop.seed)
            began = time.perf_counter()
            rows, inputs = feed(step, more=step + 1 < steps)
            with torch.no_grad():
                inputs = tuple(part.to(device, non_blocking=True) for part in inputs)
                draws = views.draw(loop.batch, torch.Generator().manual_seed(mix(loop.seed, step, 1)))
                seen = views(*inputs, draws=draws.rows(mine))
                batch = Batch(seen, rows.to(device), data.label[rows].to(device), data.group[rows].to(device))
            log.input_seconds += time.perf_counter() - began
            _seed(mix(loop.seed, step, 2, rank), device)

            optimiser.zero_grad(set_to_none=True)
            with torch.autocast(device.type, dtype=half, enabled=loop.precision != "float32"):
                out = net(batch)
            scaler.scale(out.loss).backward()
            scaler.unscale_(optimiser)
            method.before_step()
            norm = torch.nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
            if loop.clip is not None:
                torch.nn.utils.clip_grads_with_norm_(trained, loop.clip, norm)
            scale_rates(optimiser, loop.schedule(step, steps))
            scaler.step(optimiser)
            scaler.update()
            method.after_step(out)

            done = step + 1
            log.add({"loss": out.loss, "gradient_norm": norm} | out.log, optimiser.param_groups[0]["lr"])
            ends = epoch + 1 if done % per_epoch == 0 else 0
            if ends or len(log) == DRAIN:
                log.drain(done)
            improved = False
            if ends and loop.probe is not None and (ends % loop.probe_every == 0 or done == steps):
                improved, best = _probe(loop.probe, log, method, done, best)
            stopping = (ranks == 1 or done % 10 == 0) and distributed.anywhere(stop.is_set())
            if improved or stopping or done == steps or (ends and ends % loop.save_every == 0):
                save(done, improved)
            if stopping and done < steps:
                break
        loop.say(log.bound())
    return done == steps


def _restore(method: Method, optimiser: torch.optim.Optimizer, scaler: Any, loop: Loop) -> tuple[int, float | None]:
    """Load the newest checkpoint. The step to go on from, -1 where nothing was saved, and the best score so far."""
    state, notes = loop.checkpoints.newest() if loop.checkpoints is not None else (None, [])
    for note in notes:
        loop.say(note)
    if state is not None:
        method.load_state_dict(state["method"])
        optimiser.load_state_dict(state["optimiser"])
        scaler.load_state_dict(state["scaler"])
    step = state["step"] if state is not None else -1
    # All must have read before the first of them writes, or the others would find what it wrote and not what was there.
    steps = distributed.gather(torch.tensor([step], device=next(method.parameters()).device)).tolist()
    if set(steps) != {step}:
        raise ValueError(f"the processes found checkpoints of the steps {steps}: all need the same disk for --out")
    if loop.journal is not None and distributed.rank() == 0:
        loop.journal.cut(max(step, 0))
    return step, state["best"] if state is not None else None


def _probe(
    probe: Callable[[], dict[str, float]], log: _Log, method: Method, step: int, best: float | None
) -> tuple[bool, float | None]:
    """Take the probe on the first rank; whether its kNN is the best so far, and that best."""
    improved = False
    if distributed.rank() == 0:
        method.eval()
        numbers = probe()
        method.train()
        log.write(step, numbers)
        score = numbers.get("knn")
        improved = score is not None and (best is None or score > best)
        best = score if improved else best
    return distributed.anywhere(improved), best


def _insist_finite(method: Method, step: int, loop: Loop) -> None:
    # A sum of squares is finite only if all its terms are; an overflow would be as bad.
    if not torch.nn.utils.get_total_norm([p.detach() for p in method.parameters()]).isfinite():
        raise _diverged(f"a parameter is no longer finite at step {step}", loop)


def _diverged(what: str, loop: Loop) -> Diverged:
    saved = loop.checkpoints.all() if loop.checkpoints is not None else []
    stays = f"; the last finite checkpoint is {str(saved[-1])!r}" if saved else ""
    remedies = ["a lower --lr", "a smaller --clip" if loop.clip else "--clip 1"]
    if loop.precision != "float32":
        remedies.append("--precision float32" if loop.precision == "bf16" else "--precision bf16 or float32")
    return Diverged(f"{what}{stays}. Start anew with {', or '.join(remedies)}")


class _Log:
    """The numbers of the last steps, left on the device until they are read together."""

    def __init__(self, loop: Loop, method: Method, per_epoch: int, steps: int) -> None:
        self.loop, self.method, self.per_epoch, self.steps = loop, method, per_epoch, steps
        self.kept: list[dict[str, Tensor]] = []
        self.rates: list[float] = []
        self.began = self.since = time.perf_counter()
        self.input_seconds = 0.0

    def __len__(self) -> int:
        return len(self.kept)

    def add(self, numbers: dict[str, Tensor], lr: float) -> None:
        self.kept.append({name: value.detach() for name, value in numbers.items()})
        self.rates.append(lr)

    def bound(self) -> str:
        """What the speed depended on."""
        share = self.input_seconds / (time.perf_counter() - self.began)
        told = f"{share:.0%} of the time went to reading samples and making views"
        if share < 0.5:
            return f"Compute-bound: {told}, the rest to the networks and the loss."
        return (
            f"Input-bound: {told}. Smaller views (--size), samples that fit in memory, or more cores would speed it up."
        )

    def drain(self, step: int) -> None:
        if not self.kept:
            return
        table = torch.stack([torch.stack([row[name].float() for name in row]) for row in self.kept])
        names = list(self.kept[0])
        table = distributed.total(table) / distributed.world()
        losses = table[:, names.index("loss")].tolist()
        now, first = time.perf_counter(), step - len(losses)
        speed = len(losses) * self.loop.batch / (now - self.since)
        rates, self.kept, self.rates, self.since = self.rates, [], [], now
        for number, loss in enumerate(losses, step - len(losses) + 1):
            if not math.isfinite(loss):
                raise _diverged(f"the loss became {loss} in step {number}", self.loop)
        chance = self.method.chance(self.loop.batch)
        for start in range(0, len(losses), LINE):
            part = table[start : start + LINE]
            numbers = dict(zip(names, part.mean(0).tolist(), strict=True)) | (
                {} if chance is None else {"chance": chance}
            )
            numbers |= {"lr": rates[start + len(part) - 1], "samples_per_second": speed}
            self.write(first + start + len(part), numbers)

    def write(self, step: int, numbers: dict[str, float]) -> None:
        if self.loop.journal is not None and distributed.rank() == 0:
            self.loop.journal.write({"step": step, "epoch": step / self.per_epoch} | numbers)
        self.loop.watch(step, self.steps, numbers)


class _Feeder:
    """The inputs of each step, fetched one step ahead in a thread where that takes long: decoding hides behind the
    model. What lies in memory is quicker to take than a thread to wake."""

    def __init__(self, data: Source, loop: Loop, mine: slice, device: torch.device) -> None:
        self.data, self.loop, self.mine = data, loop, mine
        self.pin = device.type == "cuda"  # a copy from pinned memory does not wait for the device
        self.order: tuple[int, Tensor] | None = None
        self.ahead: tuple[int, Future[tuple[Any, ...]]] | None = None
        self.seconds = math.inf

    def __enter__(self) -> _Feeder:
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="nearfar-feeder")
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.shutdown(cancel_futures=True)

    def rows(self, step: int) -> Tensor:
        """The samples of this rank in a step."""
        epoch, at = divmod(step, len(self.data) // self.loop.batch)
        if self.order is None or self.order[0] != epoch:
            generator = torch.Generator().manual_seed(mix(self.loop.seed, epoch))
            self.order = epoch, torch.randperm(len(self.data), generator=generator)
        return self.order[1][at * self.loop.batch : (at + 1) * self.loop.batch][self.mine]

    def fetch(self, rows: Tensor) -> tuple[Any, ...]:
        began = time.perf_counter()
        inputs = self.data.fetch(rows)
        self.seconds = time.perf_counter() - began
        return tuple(part.pin_memory() if self.pin and part.device.type == "cpu" else part for part in inputs)

    def __call__(self, step: int, *, more: bool) -> tuple[Tensor, tuple[Any, ...]]:
        rows = self.rows(step)
        ready = self.ahead is not None and self.ahead[0] == step
        inputs = self.ahead[1].result() if self.ahead is not None and ready else self.fetch(rows)
        if more and self.seconds > AT_ONCE:
            self.ahead = step + 1, self.thread.submit(self.fetch, self.rows(step + 1))
        return rows, inputs


def _seed(seed: int, device: torch.device) -> None:
    # torch.manual_seed seeds every kind of device, and for those that are not in use notes a stack trace each time.
    torch.default_generator.manual_seed(seed)
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).manual_seed(seed)


@contextmanager
def _stop_requested() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets, so that the loop can save and stop; a second Ctrl-C stops at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # signals reach the main thread only
        yield event
        return

    def request(number: int, frame: object) -> None:
        if event.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        event.set()

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
