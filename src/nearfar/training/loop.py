"""THE loop. It knows no method, no modality and no file format but its own.

Everything random is derived: the order of an epoch from (seed, epoch); the draws of the views from (seed, step), for
the global batch, so that they do not depend on the number of processes; whatever else a step draws, from (seed, step,
rank). A checkpoint therefore needs only the step to continue bit for bit, in the middle of an epoch too.
"""

from __future__ import annotations

import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from nearfar import distributed
from nearfar.batch import MISSING, Batch, to
from nearfar.contrast import watched
from nearfar.data import samplers
from nearfar.method import Clock, Method, derive_seed, start_epoch
from nearfar.optim import scale_rates
from nearfar.training.feeder import Feeder
from nearfar.training.log import DRAIN, Log
from nearfar.training.options import Diverged, Loop, Source, Viewer


def fit(method: Method, data: Source, views: Viewer, optimizer: torch.optim.Optimizer, loop: Loop) -> bool:
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
    start, best = _restore(method, optimizer, scaler, loop)
    log = Log(loop, method, per_epoch, steps)

    def save(step: int, improved: bool = False) -> None:
        log.drain(step)
        _insist_finite(method, step, loop)  # on every rank, so that none waits for one that has given up
        if loop.checkpoints is not None and rank == 0:
            state = {"step": step, "best": best, "method": method.state_dict(), "optimizer": optimizer.state_dict()}
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
    grouped, marked = (bool((known != MISSING).any()) for known in (data.group, data.attribute))
    trained = [p for p in method.parameters() if p.requires_grad]
    named = type(method).identities is not Method.identities  # then who is drawn is known only when an epoch begins

    def order(generator: torch.Generator) -> Tensor:
        drawn_by = method.identities()
        return samplers.order(
            loop.sampler or method.sampler,
            data.label if drawn_by is None else drawn_by,
            batch=loop.batch,
            steps=per_epoch,
            per_class=loop.per_class or method.per_class,
            generator=generator,
        )

    with (
        _stop_requested() as stop,
        Feeder(data, batch=loop.batch, seed=loop.seed, mine=mine, device=device, order=order) as feed,
        loop.checkpoints or nullcontext(),
    ):
        done = start
        for step in range(start, steps):
            epoch = step // per_epoch
            method.clock = Clock(step, steps, epoch, loop.epochs, loop.seed)
            if loop.look is not None and step % per_epoch == 0:
                start_epoch(method, loop.look)
            began = time.perf_counter()
            last = (step + 1) % per_epoch == 0
            rows, inputs = feed(step, more=step + 1 < steps and not (named and last))
            with torch.no_grad():
                inputs = tuple(to(part, device, non_blocking=True) for part in inputs)
                draws = views.draw(loop.batch, torch.Generator().manual_seed(derive_seed(loop.seed, step, 1)))
                seen = views(*inputs, draws=draws.rows(mine))
                group = data.group[rows].to(device) if grouped else None
                attribute = data.attribute[rows].to(device) if marked else None
                batch = Batch(seen, rows.to(device), data.label[rows].to(device), group, attribute)
            log.input_seconds += time.perf_counter() - began
            _seed(derive_seed(loop.seed, step, 2, rank), device)

            done = step + 1
            ends = epoch + 1 if done % per_epoch == 0 else 0
            drains = bool(ends) or len(log) + 1 == DRAIN
            method.representations = [] if drains else None
            optimizer.zero_grad(set_to_none=True)
            with (
                torch.autocast(device.type, dtype=half, enabled=loop.precision != "float32"),
                watched() if drains else nullcontext() as watch,
            ):
                out = net(batch)
            negatives = watch.negatives() if watch else None  # before the optimizer and the memories move
            scaler.scale(out.loss).backward()
            scaler.unscale_(optimizer)
            method.before_step()
            norm = torch.nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
            if loop.clip is not None:
                torch.nn.utils.clip_grads_with_norm_(trained, loop.clip, norm)
            scale_rates(optimizer, loop.schedule(step, steps))
            scaler.step(optimizer)
            scaler.update()
            method.after_step(out)

            log.add(out.loss, norm, out.log, optimizer.param_groups[0]["lr"])
            if drains:
                log.drain(done, negatives)
                method.representations = None
            improved = False
            if ends and loop.probe is not None and (ends % loop.probe_every == 0 or done == steps):
                improved, best = _probe(loop.probe, log, method, done, best)
            if ends:
                log.tell(ends)
            stopping = (ranks == 1 or done % 10 == 0) and distributed.anywhere(stop.is_set())
            if improved or stopping or done == steps or (ends and ends % loop.save_every == 0):
                save(done, improved)
            if stopping and done < steps:
                break
        loop.say(log.bound())
    return done == steps


def _restore(method: Method, optimizer: torch.optim.Optimizer, scaler: Any, loop: Loop) -> tuple[int, float | None]:
    """Load the newest checkpoint. The step to go on from, -1 where nothing was saved, and the best score so far."""
    state, notes = loop.checkpoints.newest() if loop.checkpoints is not None else (None, [])
    for note in notes:
        loop.say(note)
    if state is not None:
        method.load_state_dict(state["method"])
        optimizer.load_state_dict(state["optimizer"])
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
    probe: Callable[[], dict[str, float]], log: Log, method: Method, step: int, best: float | None
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
        raise Diverged(f"a parameter is no longer finite at step {step}", loop)


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
