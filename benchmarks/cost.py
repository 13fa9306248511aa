"""What does a method cost? `python -m benchmarks.cost`, or with names of methods: its step beside SimCLR's.

conv4 on a batch of 256 noise images of 32 px in color; each method with the flags and views of small_images, SimCLR
on the first two of the same views. Views are made beforehand, so that method and optimizer alone are timed, with all
that starts at a later epoch. Steps of the two take turns on one thread, and the ratio of each turn counts, as a busy
machine slows both. One result file per method, with a fingerprint of its source.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

from benchmarks.bench import memory
from benchmarks.bench.results import keep
from benchmarks.bench.timing import Run, clock_for, compare
from benchmarks.learn import source
from nearfar import methods, optim
from nearfar.batch import MISSING, Batch
from nearfar.method import Clock, Look, Method, start_epoch
from nearfar.modalities import recipes
from nearfar.modalities.image import kind as image_kind
from nearfar.modalities.image.encoder import image_encoder
from nearfar.modalities.image.samples import Images, open_images
from nearfar.modalities.image.views import Views, plain
from nearfar.training import plan as plans
from nearfar.training import probe as probing
from nearfar.training.loop import step

RESULTS = Path(__file__).parent / "results" / "cost"
SIDE, CLASSES = 32, 10
SMALLEST = 16
"""Pixels: smaller crops are left out, as conv4 halves an image four times."""
LATE = 1000
"""An epoch at which all has started."""


@dataclass(frozen=True)
class Size:
    """How large: samples in a step, and in all, and the encoder; at least so many turns, and about so many seconds."""

    batch: int = 256
    samples: int = 2048
    turns: int = 5
    seconds: float = 8.0
    encoder: str = "conv4"


@dataclass(frozen=True)
class Ask:
    """Which methods."""

    methods: tyro.conf.Positional[tuple[str, ...]] = ()
    """Those whose result is missing or stale, if none is given."""
    everything: bool = False
    """All of them."""
    peak: bool = False
    """Print the peak of the one method named, of this fresh process, and keep nothing."""
    encoder: str = "conv4"
    """Of a --peak."""
    batch: int = 256
    """Samples in a step of a --peak."""


def main(asked: Ask) -> None:
    """Measure, and keep the results."""
    torch.set_num_threads(1)
    if asked.peak:
        memory.answer(lambda: peak(asked.methods[0], Size(batch=asked.batch, encoder=asked.encoder)))
        return
    for name in asked.methods or [name for name in timed() if asked.everything or stale(name)]:
        result = cost(name, Size()) | {"MiB": {"method": fresh_peak(name), "simclr": fresh_peak("simclr")}}
        keep(RESULTS / f"{name}.json", result | {"command": f"python -m benchmarks.cost {name}"})
        print(f"    peak MiB {result['MiB']}, of an epoch {result['epoch_ms_per_sample']}", flush=True)


def timed() -> list[str]:
    """The methods that can be compared with SimCLR: those that take images."""
    every = {name: methods.load(name) for name in methods.names()}
    return [name for name, method in every.items() if not (method.needs_writer or method.needs_frames)]


def stale(name: str) -> bool:
    """Whether a method has no result, or one of another version of its file or with other flags."""
    path = RESULTS / f"{name}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    return known.get("source") != source(name) or known["arguments"] != json.loads(json.dumps(plan(name).arguments))


def cost(name: str, size: Size) -> dict[str, Any]:
    """Time of a step beside SimCLR's, and of what is done before the first and before a later epoch."""
    images, batches = given(name, size)
    two = [replace(batch, views=(batch.views * 2)[:2]) for batch in batches]  # of one view, the same again
    method, seen = built(name, size), labels(name, size)
    before = {"first": before_epoch(method, images, seen, 0), "later": before_epoch(method, images, seen, LATE)}
    row = compare(
        f"a step of {name}",
        {"Batch": size.batch},
        {"SimCLR": lambda: stepping(built("simclr", size), two), name: lambda: stepping(method, batches)},
        clock=clock_for(torch.get_num_threads()),
        seconds=size.seconds,
        least=size.turns,
        reference="SimCLR",
    )
    ratio, spent = row.ratio[name], row.seconds
    return {
        "method": name,
        "source": source(name),
        "ratio": {"median": round(ratio.median, 3), "low": round(ratio.low, 3), "high": round(ratio.high, 3)},
        "step_ms": {who: round(1e3 * spent[key].median, 1) for who, key in (("method", name), ("simclr", "SimCLR"))},
        "turns": row.turns,
        "epoch_ms_per_sample": {when: round(1e3 * t / size.samples, 4) for when, t in before.items()},
        "views": len(batches[0].views),
        "crops_left_out": len(views_of(name).views) - len(batches[0].views),
        "batch": size.batch,
        "samples": size.samples,
        "encoder": plan(name).settings.encoder,
        "recipe": "small_images",
        "arguments": plan(name).arguments,
        "threads": torch.get_num_threads(),
        "clock": "CPU time" if torch.get_num_threads() == 1 else "time on the wall",
    }


def plan(name: str) -> plans.Plan:
    """A method as the recipe for small images has it, on conv4; on one for each stream where it wants several."""
    streams, colon, _ = recipes.load("small_images", name, "image").settings.encoder.rpartition(":")
    return plans.make(name, "noise", "small_images", {"encoder": f"{streams}{colon}conv4"})


def views_of(name: str) -> Views:
    """What makes them."""
    return image_kind.named_views(plan(name).settings, SIDE)


@cache
def noise(size: Size) -> Images:
    """Noise about a color of its own for each image, so that there is something to cluster."""
    draws = torch.Generator().manual_seed(0)
    color = torch.randint(0, 200, (size.samples, 1, 1, 3), generator=draws)
    pixels = color + torch.randint(0, 56, (size.samples, SIDE, SIDE, 3), generator=draws)
    return open_images(pixels.to(torch.uint8).numpy())


def given(name: str, size: Size) -> tuple[Images, list[Batch]]:
    """The samples, and two batches of the views that the method's recipe names; with labels where it needs them."""
    images, draws = noise(size), torch.Generator().manual_seed(1)
    views = views_of(name)
    label = labels(name, size)
    batches = []
    for rows in torch.randperm(size.samples, generator=draws)[: 2 * size.batch].split(size.batch):
        seen = views(*images.fetch(rows), draws=views.draw(len(rows), draws))
        batches.append(Batch([view for view in seen if view.shape[-1] >= SMALLEST], rows, label[rows]))
    return images, batches


def labels(name: str, size: Size) -> Tensor:
    """The classes of the samples, evenly; MISSING for a method that has no use for them."""
    label = torch.arange(size.samples) % CLASSES
    return label if methods.load(name).needs_labels else torch.full_like(label, MISSING)


def built(name: str, size: Size) -> Method:
    """A method on conv4, in training, late."""
    torch.manual_seed(0)
    called = plan(name).settings.encoder.replace("conv4", size.encoder)
    encoder = image_encoder(called, channels=3, size=SIDE, mean=[0.5] * 3, std=[0.25] * 3)
    counts = torch.bincount(torch.arange(size.samples) % CLASSES).tolist()
    known = {"samples": size.samples, "classes": CLASSES, "counts": tuple(counts), "channels": 3}
    method = methods.build(methods.load(name), encoder, plan(name).arguments, **known).train()
    per_epoch = size.samples // size.batch
    method.clock = Clock(step=LATE * per_epoch, steps=2 * LATE * per_epoch, epoch=LATE, epochs=2 * LATE)
    return method


def before_epoch(method: Method, images: Images, label: Tensor, epoch: int) -> float:
    """Seconds of what the method does before an epoch, its look at all samples included; 0 where it does nothing."""
    if type(method).before_epoch is Method.before_epoch:
        return 0.0
    clock, was = clock_for(torch.get_num_threads()), method.clock
    method.clock = replace(was, epoch=epoch, step=was.step * epoch // LATE)
    began = clock()
    start_epoch(method, Look(lambda network: probing.look(network, plain(SIDE), images, torch.device("cpu")), label))
    spent, method.clock = clock() - began, was
    return spent


def stepping(method: Method, batches: list[Batch]) -> Run:
    """One step after the other, as the loop makes them."""
    optimizer = optim.sgd(optim.parameter_groups(method, 5e-4), 0.01)
    batch = cycle(batches)

    def run() -> None:
        step(method, next(batch), optimizer)
        method.clock.step += 1

    return run


def peak(name: str, size: Size) -> float:
    """MiB that method, encoder, gradients, optimizer and three steps take at most, with what is done before an epoch.

    Views are made before, and do not count. To be asked in a fresh process.
    """
    images, batches = given(name, size)

    def train(method_name: str, size: Size, batches: list[Batch]) -> None:
        method = built(method_name, size)
        for epoch in (0, LATE):
            before_epoch(method, images, labels(method_name, size), epoch)
        run = stepping(method, batches)
        for _ in range(3):
            run()

    tiny = replace(size, batch=8)
    return memory.extra(
        lambda: lambda: train(name, size, batches), warm=lambda: train("simclr", tiny, given("simclr", tiny)[1])
    )


@cache
def fresh_peak(name: str) -> float | str:
    """The same of a process of its own, at full size; or why there is none."""
    found = memory.ask("benchmarks.cost", [name, "--peak"])
    return round(found, 1) if isinstance(found, float) else found


if __name__ == "__main__":
    main(tyro.cli(Ask, args=sys.argv[1:]))
