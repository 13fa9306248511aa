"""THE loop, and the one way in which a step is made. It knows no method, no kind of data and no file format.

Everything random is derived: the order of an epoch from (seed, epoch); the draws of the views from (seed, step), for
the global batch, so that they do not depend on the number of processes; whatever else a step draws, from (seed, step,
rank). A checkpoint therefore needs only the step to continue bit for bit, in the middle of an epoch too.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn

from nearfar import distributed
from nearfar.batch import Batch
from nearfar.contrast import watched
from nearfar.data.source import Source, Views
from nearfar.errors import Lost
from nearfar.machine import memory_kept
from nearfar.method import Clock, Method, Step, derive_seed, in_turn, start_epoch
from nearfar.nn.spectral import iterate
from nearfar.optim import scale_rates
from nearfar.training.batches import Batches
from nearfar.training.log import Log
from nearfar.training.lost import TooManyLost
from nearfar.training.options import Loop, StepOptions, StepResult
from nearfar.training.parallel import parallel
from nearfar.training.state import State

DEFAULTS = StepOptions()
UNSCALED = torch.amp.GradScaler(enabled=False)


def fit(method: Method, data: Source, views: Views, optimizer: torch.optim.Optimizer, loop: Loop) -> bool:
    """Train `method` in place, from the newest checkpoint if there is one. True when done, False when told to stop.

    Raises Diverged when the loss or a parameter stops being finite; the last finite checkpoint stays. Raises
    TooManyLost, after a checkpoint, when more samples can be read no more than may be.
    """
    batches = Batches(method, data, views, loop)
    steps, per_epoch = batches.steps, batches.per_epoch
    scaler = torch.amp.GradScaler(batches.device.type, enabled=loop.precision == "fp16")
    state = State(method, optimizer, scaler, loop)
    start = state.restore()
    log = Log(loop, method, per_epoch, steps, alike=getattr(views, "alike", False))
    if start is None:
        start = 0
        state.save(0)
    else:
        loop.say(f"Going on from step {start:,} of {steps:,}.")
    net = _distributed(method)
    method.train()
    # A run that was killed before its first checkpoint begins again at step 0, and may have measured it already.
    begins = start == 0 and not distributed.anywhere(log.begun)
    before = _probe(loop.probe, method) if begins and loop.probe is not None and 0 in loop.probe_after else {}
    if begins and loop.scores is not None and 0 in loop.scores_after:
        before |= _probe(partial(loop.scores, 0), method)

    done = start
    with _stop_requested() as stop, memory_kept(), batches, loop.checkpoints or nullcontext():
        for number in range(start, steps):
            epoch, first = divmod(number, per_epoch)
            method.clock = Clock(number, steps, epoch, loop.epochs, loop.seed)
            try:
                if loop.look is not None and first == 0:
                    start_epoch(method, loop.look)
                with log.input():
                    batch = batches(number)
            except (Lost, TooManyLost):
                if distributed.world() == 1:  # others would wait for this process
                    log.drain(done)
                    state.save(done)
                raise
            distributed.passed()
            done = number + 1
            ends = done % per_epoch == 0
            reads = ends or log.full
            result = step(method, batch, optimizer, loop, scaler=scaler, net=net, inspect=reads or number == start)
            log.add(result, optimizer.param_groups[0]["lr"])
            if begins and number == 0:
                log.begin(result, before)
            if reads:
                log.drain(done, result)
            improved = worse = False
            if ends and loop.probe is not None and epoch + 1 in loop.probe_after:
                improved = _improves(_probe(loop.probe, method), log, state, done)
                worse = loop.stop_if_worse and distributed.anywhere(log.progress.worse)
            if ends and loop.scores is not None and epoch + 1 in loop.scores_after:
                log.measured(done, _probe(partial(loop.scores, done), method))
            if ends and not loop.quiet:
                log.tell(epoch + 1)
            if worse:
                loop.say("Stopping, as --stop-if-worse asks: neighbors are worse than before training.")
            stopping = worse or (ends and batches.stand_ins.agree() and done < steps)
            if reads and (news := batches.stand_ins.news()):
                loop.say(news)
            if distributed.world() == 1 or done % 10 == 0:
                stopping |= distributed.anywhere(stop.is_set() or batches.stand_ins.too_many)
            stays = epoch + 1 if ends and loop.keep_every and (epoch + 1) % loop.keep_every == 0 else 0
            if improved or stopping or stays or done == steps or (ends and (epoch + 1) % loop.save_every == 0):
                log.drain(done)
                state.save(done, best=improved, epoch=stays)
            if stopping:
                if done < steps and batches.stand_ins.agree():
                    raise batches.stand_ins.error()
                break
        if not loop.quiet:
            loop.say(log.bound())
    return done == steps


def step(
    method: Method,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    options: StepOptions = DEFAULTS,
    *,
    scaler: torch.amp.GradScaler = UNSCALED,
    net: nn.Module | None = None,
    inspect: bool = False,
) -> StepResult:
    """Make one optimization step on a batch, at the time that `method.clock` shows. Gradients stay as they were used.

    scaler: of losses in fp16.  net: what the forward pass goes through, such as DDP around the method.
    inspect: whether to keep what the encoder makes of the batch, to count the effective negatives, and to ask for the
        chance level, which is asked for in each step where it varies with labels or groups.
    """
    clock, device = method.clock, batch.index.device
    half = torch.float16 if options.precision == "fp16" else torch.bfloat16
    method.representations = [] if inspect else None
    _seed(derive_seed(clock.seed, clock.step, 2, distributed.rank()), device)

    optimizer.zero_grad(set_to_none=True)
    with in_turn(method):
        with (  # the method leaves autocast to its networks
            torch.autocast(device.type, dtype=half, enabled=options.precision != "float32"),
            watched() if inspect else nullcontext() as watch,
        ):
            out: Step = (method if net is None else net)(batch)
        distributed.passed()
        negatives = watch.negatives() if watch else None  # before the optimizer and the memories move
        scaler.scale(out.loss).backward()
    varies = method.needs_labels or batch.group is not None  # from batch to batch
    chance = _chance(method, batch) if inspect or varies else None
    scaler.unscale_(optimizer)
    method.before_step()
    gradients = [p.grad for p in method.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if options.clip is not None:
        torch.nn.utils.clip_grads_with_norm_(method.parameters(), options.clip, norm)
    scale_rates(optimizer, options.schedule(clock.step, clock.steps))
    scaler.step(optimizer)
    scaler.update()
    method.after_step(out)
    iterate(method)

    representations, method.representations = method.representations, None
    return StepResult(out, norm, representations, negatives, chance)


@torch.no_grad()
def _chance(method: Method, batch: Batch) -> Tensor | None:
    share = method.chance(batch)
    return None if share is None else torch.as_tensor(share, dtype=torch.float32, device=batch.index.device)


def _seed(seed: int, device: torch.device) -> None:
    # torch.manual_seed seeds every kind of device, and for those that are not in use notes a stack trace each time.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _distributed(method: Method) -> nn.Module:
    """The method, in DDP where several processes train together."""
    return method if distributed.world() == 1 else parallel(method)


def _probe(probe: Callable[[], dict[str, float]], method: Method) -> dict[str, float]:
    """The numbers of the probe, which the first rank takes; nothing on the others."""
    if distributed.rank() != 0:
        return {}
    method.eval()
    numbers = probe()
    method.train()
    return numbers


def _improves(numbers: dict[str, float], log: Log, state: State, step: int) -> bool:
    """Write a probe down. Whether its kNN is the best since training began, on every rank."""
    score, improved = numbers.get("knn"), False
    log.measured(step, numbers)
    if score is not None and (state.best is None or score > state.best):
        state.best, improved = score, True
    return distributed.anywhere(improved)


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
