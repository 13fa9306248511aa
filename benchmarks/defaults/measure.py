"""One run of the bench: train a method on a set for a budget, and measure kNN and linear on its test part.

A budget is CPU-minutes on one thread, counted as samples by the cost of one, which was measured once for each method
and form of image (`costs.json`): so another machine makes the same steps.
"""

from __future__ import annotations

import json
import time
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.bench.results import keep
from benchmarks.defaults import sets
from benchmarks.defaults.candidates import CANDIDATES
from nearfar.data.splits import holdout
from nearfar.evaluation.knn import knn_scores
from nearfar.evaluation.linear import linear_scores, ridge
from nearfar.modalities.image.samples import Images
from nearfar.modalities.image.settings import VIEWS
from nearfar.modalities.image.views import plain
from nearfar.training import plan as plans
from nearfar.training import probe as probing
from nearfar.training.build import Built, build
from nearfar.training.loop import fit
from nearfar.training.optimization import make_optimizer, make_schedule
from nearfar.training.options import Loop

RESULTS = Path(__file__).parents[1] / "results" / "defaults"
OURS = Path(__file__).parent / "views.py"
NEIGHBORS = (1, 5, 20, 200)


def path(name: str, method: str, config: str, minutes: float, seed: int) -> Path:
    """The file of a result."""
    return RESULTS / name / f"{method}-{config}-{minutes:g}min-seed{seed}.json"


def baseline_path(name: str, what: str, seed: int) -> Path:
    """The file of what is compared with: untrained, or raw, which has no seed."""
    return RESULTS / name / (f"{what}.json" if what == "raw" else f"{what}-seed{seed}.json")


def about(name: str) -> dict[str, Any]:
    """What a table needs to know of a set."""
    source, data = sets.SETS[name], sets.load(name)
    return {
        "set": name,
        "nature": source.nature,
        "source": source.file,
        "about": source.about,
        "train": len(data.train),
        "test": len(data.test),
        "channels": data.train.channels,
        "side": data.train.side,
        "classes": len(data.train.classes),
        "group": data.tested.unique(return_inverse=True)[1].tolist(),
    }


def trained(name: str, method: str, config: str, minutes: float, seed: int) -> dict[str, Any]:
    """Train and measure."""
    data = sets.load(name)
    plan, steps = planned(data.train, method, config, minutes, seed)
    built = built_of(plan, data.train)
    losses: list[float] = []
    began = time.process_time()
    train(plan, built, data.train, lambda step, steps, numbers: losses.append(numbers.get("loss", float("nan"))))
    worked = time.process_time() - began
    return {
        "set": name,
        "method": method,
        "config": config,
        "minutes": minutes,
        "seed": seed,
        **measured(built.encoder, data),
        "steps": steps,
        "epochs": plan.settings.epochs,
        "batch": built.facts["batch"],
        "cpu_seconds": round(worked, 1),
        "last_loss": round(losses[-1], 4) if losses else None,
        "flags": flags(method, config, steps),
        "command": f"python -m benchmarks.defaults {method} --sets {name} --configs {config} --minutes {minutes:g}",
        "threads": torch.get_num_threads(),
    }


def flags(method: str, config: str, steps: int) -> dict[str, Any]:
    """What a configuration lays over the recipe `small_images`, for so many steps."""
    return {k: v(steps) if callable(v) else v for k, v in CANDIDATES[method][config].items()}


def planned(data: Images, method: str, config: str, minutes: float, seed: int) -> tuple[plans.Plan, int]:
    """The plan of a run, and how many steps it has: whole epochs, at least one."""
    given = CANDIDATES[method][config]
    seen = 60 * minutes / cost(method, data.channels, data.side) / (2 if given.get("symmetric") else 1)
    batch = min(given.get("batch") or plans.make(method, data, "small_images", {}).settings.batch, len(data))
    per_epoch = len(data) // batch
    epochs = max(1, round(seen / (per_epoch * batch)))
    laid = flags(method, config, epochs * per_epoch) | {"epochs": epochs, "seed": seed, "encoder": "conv4"}
    if "views" in laid and laid["views"] not in VIEWS:
        laid["views"] = f"{OURS}:{laid['views']}"
    return plans.make(method, data, "small_images", laid), epochs * per_epoch


def built_of(plan: plans.Plan, data: Images) -> Built:
    """The encoder, the method and the views, with the weights that the seed draws."""
    return build(plan, data, min(plan.settings.batch, len(data)), RESULTS, lambda text: None)


def train(plan: plans.Plan, built: Built, data: Images, watch: Any = None) -> None:
    """Carry a plan out in memory."""
    settings, batch = plan.settings, built.facts["batch"]
    loop = Loop(
        epochs=settings.epochs,
        batch=batch,
        schedule=make_schedule(settings, len(data) // batch),
        seed=settings.seed,
        clip=settings.clip or None,
        sampler="" if settings.sampler == "method" else settings.sampler,
        quiet=True,
        say=lambda text: None,
        **({"watch": watch} if watch else {}),
    )
    if not fit(built.method, data, built.views, make_optimizer(built.method, settings, batch), loop):
        raise KeyboardInterrupt("stopped before the end: nothing was measured")


def untrained(name: str, seed: int) -> dict[str, Any]:
    """What the encoder gives with the weights that it begins with, whichever method it is then trained by."""
    data = sets.load(name)
    plan = plans.make("simclr", data.train, "small_images", {"encoder": "conv4", "seed": seed})
    return {"set": name, "seed": seed, **measured(built_of(plan, data.train).encoder, data)}


def raw(name: str) -> dict[str, Any]:
    """The pixels themselves, halved in side from 64 px on."""
    data = sets.load(name)

    def rows(images: Images) -> Tensor:
        x = images.pixels(torch.arange(len(images))).float() / 255
        return (nn.functional.avg_pool2d(x, 2) if x.shape[-1] > 32 else x).flatten(1)

    return {"set": name, **measured_rows(rows(data.train), rows(data.test), data)}


def measured(encoder: nn.Module, data: sets.Set) -> dict[str, Any]:
    """kNN and linear on the test part, from what the encoder makes of the images."""
    encoder.eval()
    known, asked = (probing.passed(encoder, plain(data.train.side), part) for part in (data.train, data.test))
    return measured_rows(known, asked, data)


def measured_rows(known: Tensor, asked: Tensor, data: sets.Set) -> dict[str, Any]:
    """The same of rows: accuracies, what was chosen on training rows, and which test samples were hit."""
    label, truth, classes = data.train.label, data.test.label, len(data.train.classes)
    group = None if len(data.group.unique()) == len(data.group) else data.group
    rest, held = holdout(label, group, share=0.2, seed=0)

    def votes(bank: Tensor, queries: Tensor, k: int, known_label: Tensor) -> Tensor:
        return knn_scores(bank, known_label, queries, k=k, classes=classes).argmax(1)

    chosen = [
        float((votes(known[rest], known[held], k, label[rest]) == label[held]).double().mean()) for k in NEIGHBORS
    ]
    k = NEIGHBORS[int(np.argmax(chosen))]
    scores, config, _ = linear_scores(known, label, asked, group=group, solver=ridge)
    return {
        "knn": _told(votes(known, asked, k, label) == truth) | {"k": k},
        "linear": _told(scores.argmax(1) == truth) | {"strength": config["strength"]},
    }


def _told(hit: Tensor) -> dict[str, Any]:
    return {"accuracy": round(100 * float(hit.double().mean()), 2), "hits": np.packbits(hit.numpy()).tobytes().hex()}


def hits(result: dict[str, Any], count: int) -> Tensor:
    """Which of so many test samples were hit: N, bool."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(result["hits"]), np.uint8), count=count)
    return torch.from_numpy(bits).bool()


@cache
def cost(method: str, channels: int, side: int) -> float:
    """CPU seconds that a sample takes in training by a method, as measured once."""
    costs = json.loads((RESULTS / "costs.json").read_text())
    return costs["seconds"][f"{method}, {channels} x {side} px"]


def measure_costs() -> None:
    """Measure what is missing in `costs.json`: the fastest of a few steps of 256 samples, on one thread."""
    file = RESULTS / "costs.json"
    seconds = json.loads(file.read_text())["seconds"] if file.exists() else {}
    torch.set_num_threads(1)
    for name in ("cifar-1k", "digits"):
        data = sets.load(name).train
        for method in CANDIDATES:
            key = f"{method}, {data.channels} x {data.side} px"
            if key in seconds:
                continue
            laid = {"encoder": "conv4", "batch": 256, "views": "simclr", "epochs": 2, "optimizer": "adamw"}
            plan = plans.make(method, data, "small_images", laid)
            built, clock = built_of(plan, data), []
            built.method.before_step = lambda clock=clock: clock.append(time.process_time())  # once a step
            train(plan, built, data)
            seconds[key] = round(min(b - a for a, b in pairwise(clock[1:])) / 256, 7)
            keep(file, {"seconds": seconds, "command": "python -m benchmarks.defaults --costs"})
            print(f"{key}: {1000 * seconds[key]:.3f} ms a sample", flush=True)
