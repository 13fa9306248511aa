"""How long a run will take: some of its own steps, timed before it begins."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from nearfar.batch import to
from nearfar.data.samples import Samples
from nearfar.machine import pick_device
from nearfar.method import Clock
from nearfar.nn.micro_batch import activation_bytes
from nearfar.training.batches import Batches
from nearfar.training.build import Built, batch_size, build, micro_batch
from nearfar.training.job import fit_built
from nearfar.training.loop import step
from nearfar.training.optimization import make_optimizer, make_schedule
from nearfar.training.options import Loop
from nearfar.training.plan import Plan, with_flags

SMALL = 16
"""Samples of the first steps that are timed."""

LONG = 4.0
"""Seconds of a whole step, judged by a small one, above which it is computed from smaller ones and not made."""

SHORT = 1.0
"""Seconds of the steps of an epoch below which it counts what else an epoch takes."""

ENOUGH = 1.5
"""Seconds after which no further step is timed."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """step: seconds of one, its views with it.  epoch: seconds that an epoch takes besides its steps, such as for the
    checkpoint.  per_epoch: steps in an epoch.  batch: samples in a step.  memory: bytes that the activations of a
    step take.  device: the type of the device."""

    step: float
    epoch: float
    per_epoch: int
    batch: int
    memory: float
    device: str

    def seconds(self, epochs: int) -> float:
        """Of a run of so many epochs."""
        return epochs * (self.per_epoch * self.step + self.epoch)

    def epochs(self, seconds: float) -> int:
        """That fit in so much time: none, where not even one does."""
        return int(seconds / self.seconds(1))


def pace(plan: Plan, samples: Samples) -> Pace:
    """Time some steps of a run on its samples, as it would make them, on a method that is thrown away.

    samples: those to train on.  Where a step takes long, smaller ones are timed: time grows with the samples.
    """

    def quiet(text: str) -> None:
        return

    device = pick_device(plan.settings.device)
    batch = batch_size(plan.settings.batch, len(samples), quiet)
    built = build(plan, samples, batch, Path(), quiet)
    built.method.to(device).train()
    needed = (
        activation_bytes(built.encoder, to(built.encoder.example(min(4, batch)), device)) * len(built.views) * batch
    )
    built.method.micro_batch = micro_batch(plan.settings.micro_batch, built, device, quiet)
    few = min(SMALL, batch)
    seconds = _timed(plan, built, few, device)
    if few < batch:
        if seconds * batch / few <= LONG:
            seconds = _timed(plan, built, batch, device)
        else:
            more = min(batch, 3 * few)
            each = max(0.0, _timed(plan, built, more, device) - seconds) / (more - few)
            seconds += (batch - few) * each
    per_epoch, beside = len(samples) // batch, 0.0
    if per_epoch * seconds < SHORT:
        once, more = (_fitted(plan, built, epochs, device) for epochs in (1, 4))
        beside = max(0.0, (more - once) / 3 - per_epoch * seconds)
    return Pace(step=seconds, epoch=beside, per_epoch=per_epoch, batch=batch, memory=needed, device=device.type)


def _fitted(plan: Plan, built: Built, epochs: int, device: torch.device) -> float:
    """The time of so many whole epochs, with all that is done after each but for probes, which cost a small share."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        short = with_flags(plan, {"epochs": epochs, "probe_every": 0})
        built.facts["probe_samples"] = 0
        fit_built(short, Path(folder), built, device, lambda text: None, lambda step, steps, numbers: None)
    return time.perf_counter() - began


def _timed(plan: Plan, built: Built, batch: int, device: torch.device) -> float:
    """The median time of a step of so many samples; the first pays for what is done once, and does not count."""
    settings, method = plan.settings, built.method
    per_epoch = max(1, len(built.samples) // batch)
    epochs = max(settings.epochs, 32)  # steps enough to time
    loop = Loop(
        epochs=epochs,
        batch=batch,
        schedule=make_schedule(settings, per_epoch),
        seed=settings.seed,
        precision=settings.precision,
        clip=settings.clip or None,
        sampler="" if settings.sampler == "method" else settings.sampler,
        per_class=settings.per_class,
    )
    optimizer = make_optimizer(method, settings, batch)
    spent: list[float] = []
    with Batches(method, built.samples, built.views, loop) as batches:
        for number in range(12):
            began = time.perf_counter()
            method.clock = Clock(number, batches.steps, 0, epochs, settings.seed)
            step(method, batches(number), optimizer, loop)
            if device.type == "cuda":
                torch.cuda.synchronize()
            spent.append(time.perf_counter() - began)
            if sum(spent[1:]) > ENOUGH:
                break
    return median(spent[1:])
