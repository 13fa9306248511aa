"""Every method on CIFAR-10 at equal budget, on a CPU: `make compare`, or `python -m benchmarks.compare simclr moco`.

The same small encoder, samples seen and optimizer for all; what a method needs of its own is in METHODS and was chosen
with --pilot, on 5,000 training images held out; one that is not named there has the views and arguments of a recipe.
kNN on the test set with the training images that were seen as bank, last epoch. One result file per run, so that a
stopped comparison goes on where it was; the tables in docs/results.md are made from them.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from benchmarks.bench.results import keep
from nearfar import methods
from nearfar.evaluation.intervals import over_seeds
from nearfar.evaluation.knn import knn
from nearfar.modalities.image.samples import Images, open_images
from nearfar.modalities.image.views import plain
from nearfar.run import Run, load
from nearfar.training import job as training
from nearfar.training import plan as plans
from nearfar.training import probe as probing

RESULTS = Path(__file__).parent / "results" / "compare"
DATA = Path(os.environ.get("NEARFAR_DATA", Path(__file__).parent.parent.parent / "shared" / "data"))
COMMON = {"encoder": "conv4", "batch": 128, "optimizer": "adamw", "weight_decay": 1e-2, "probe_every": 1000}
BUDGETS = ((50_000, 5), (10_000, 3))
"""Images and epochs of which results are kept."""
METHODS: dict[str, dict[str, Any]] = {
    "simclr": {"lr": 2e-3, "views": "simclr", "temperature": 0.2},
    "moco": {"lr": 2e-3, "views": "simclr", "temperature": 0.2, "queue": 4096, "momentum": 0.99},
    "byol": {"lr": 2e-3, "views": "byol", "hidden": 1024, "momentum": 0.9},
    "swav": {"lr": 2e-3, "views": "simclr", "prototypes": 100, "hidden": 512},
    "barlow": {"lr": 2e-3, "views": "simclr", "dim": 1024},
    "supcon": {"lr": 2e-3, "views": "supcon", "temperature": 0.1},
    # What starts at an epoch that is never reached here starts at the second, and slow copies are MoCo's, for they have
    # as few steps.
    "mochi": {"lr": 2e-3, "start": 1},
    "pcl": {"lr": 2e-3, "start": 1, "restarts": 1},
    "mice": {"lr": 2e-3, "queue": 4096, "momentum": 0.99},
    "kcl": {"lr": 2e-3, "momentum": 0.99},
    "paco": {"lr": 2e-3, "momentum": 0.99},
    # conv4 takes no smaller crops, and cmc wants a network for each stream.
    "fnc": {"lr": 2e-3, "views": "simclr"},
    "relicv2": {"lr": 2e-3, "crops": (2, 0)},
    "cmc": {"lr": 2e-3, "encoder": "ycbcr:conv4"},
}


@dataclass(frozen=True)
class Compare:
    """Which methods, and how long."""

    methods: tyro.conf.Positional[tuple[str, ...]] = ()
    """All that there are, if none is given."""
    seeds: int = 3
    """Runs of each method."""
    epochs: int = 5
    """Passes over the training images."""
    samples: int = 50_000
    """Training images, the first of the file."""
    pilot: bool = False
    """Judge by 5,000 training images that are held out, and keep nothing."""


def main(asked: Compare) -> None:
    """Run what is missing, then print the table."""
    everything = open_images(DATA / "cifar10_train.npz")
    test = everything.subset(range(45_000, 50_000)) if asked.pilot else open_images(DATA / "cifar10_test.npz")
    bank = everything.subset(range(min(asked.samples, 45_000 if asked.pilot else 50_000)))
    every = {name: methods.load(name) for name in methods.names()}
    names = asked.methods or [name for name, of in every.items() if not (of.needs_writer or of.needs_frames)]
    for seed in range(asked.seeds):
        for method in names:
            path = RESULTS / f"{method}-{asked.samples}x{asked.epochs}-seed{seed}.json"
            if asked.pilot or not path.exists():
                result = one(method, seed, asked, bank, test)
                print(json.dumps(result), flush=True)
                if not asked.pilot:
                    keep(path, result)
    if not asked.pilot:
        print(table(names, [(asked.samples, asked.epochs)]))


def one(method: str, seed: int, asked: Compare, bank: Images, test: Images) -> dict[str, Any]:
    """Train once and measure: kNN accuracy on the test images of the trained and the untrained encoder."""
    flags = COMMON | METHODS.get(method, {"lr": 2e-3}) | {"epochs": asked.epochs, "seed": seed}
    with trained(plans.make(method, bank, "small_images", flags)) as (run, took):
        scores = {}
        for name, encoder in (("untrained", run.untrained()), ("trained", run.encoder)):
            known, asked_for = (probing.embed(encoder, plain(32), part) for part in (bank, test))
            scores[name] = knn(known, bank.label, asked_for, test.label, k=200, temperature=0.1)["accuracy"]
    return {
        "method": method,
        "seed": seed,
        "knn_untrained": round(scores["untrained"], 2),
        "knn_trained": round(scores["trained"], 2),
        **took,
        "flags": {name: value for name, value in flags.items() if name != "probe_every"},
        "samples": len(bank),
        "protocol": {
            "name": "knn",
            "k": 200,
            "temperature": 0.1,
            "bank": len(bank),
            "test": len(test),
            "epoch": "last",
        },
        "command": f"python -m benchmarks.compare {method} --epochs {asked.epochs} --samples {asked.samples}",
        "threads": torch.get_num_threads(),
    }


@contextmanager
def trained(plan: plans.Plan) -> Iterator[tuple[Run, dict[str, float]]]:
    """A plan carried out, in a directory that is gone afterward; and what it took, with the last loss."""
    folder = Path(tempfile.mkdtemp())
    try:
        began, worked = time.perf_counter(), time.process_time()
        if not training.train(plan, folder / "run", say=lambda text: None):
            raise KeyboardInterrupt("stopped before the end: nothing was measured")
        seconds, worked = time.perf_counter() - began, time.process_time() - worked
        losses = [line["loss"] for line in run_metrics(folder / "run") if "loss" in line]
        took = {"seconds": round(seconds, 1), "cpu_seconds": round(worked, 1), "last_loss": round(losses[-1], 4)}
        yield load(folder / "run"), took
    finally:
        shutil.rmtree(folder)


def run_metrics(folder: Path) -> list[dict[str, float]]:
    """The journal of a run."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def table(names: Sequence[str], budgets: Sequence[tuple[int, int]]) -> str:
    """The results of all seeds as a Markdown table, with 95 % t-intervals over seeds. budgets: images and epochs."""
    rows = [
        "| method | images x epochs | seeds | untrained kNN % | trained kNN % | gain, 95 % interval | CPU s a run |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in names:
        for samples, epochs in budgets:
            paths = sorted(RESULTS.glob(f"{name}-{samples}x{epochs}-seed*.json"))
            found = [json.loads(path.read_text()) for path in paths]
            if len(found) < 2:
                continue
            before, after = (sum(r[f"knn_{when}"] for r in found) / len(found) for when in ("untrained", "trained"))
            gain = over_seeds([r["knn_trained"] - r["knn_untrained"] for r in found])
            seconds = sum(r["cpu_seconds"] for r in found) / len(found)
            budget = f"{samples:,} x {epochs} | {len(found)}"
            rows.append(f"| {name} | {budget} | {before:.1f} | {after:.1f} | {gain:+.1f} | {seconds:.0f} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main(tyro.cli(Compare, args=sys.argv[1:]))
