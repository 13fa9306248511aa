"""How far do few labels go? `python -m benchmarks.fewlabels`, on written characters and on photographs of groceries.

SimCLR learns from the unlabeled samples; then 1, 2, 5 or 10 labels a class make a classifier: from scratch (the whole
network, from random weights), linear on frozen features (of the encoder, and of the first layer of SimCLR's projector,
as its second version has it), the whole network fine-tuned, and that distilled into a
student of the same size, which begins as the pre-trained encoder, on the unlabeled samples of those classes. Tested
are drawings by other hands, and the photographs of the test part; none of them is in any training. One pre-training
serves all budgets of its seed. Learning rates of whole networks were looked at by --pilot on drawings, one seed, on
samples that are otherwise learned from.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks.bench.results import keep
from benchmarks.compare import DATA, trained
from nearfar.batch import MISSING
from nearfar.evaluation.intervals import over_seeds
from nearfar.fewlabels.classifier import Classifier
from nearfar.fewlabels.distillation import distill
from nearfar.fewlabels.finetuning import finetune
from nearfar.modalities.image.samples import Images, open_images
from nearfar.run import Run
from nearfar.training import plan as plans

RESULTS = Path(__file__).parent / "results" / "fewlabels"
BUDGETS = (1, 2, 5, 10)
CHARACTERS, HANDS = 60, 10
"""Of the drawings: characters that are to be told apart, and drawers of each that are learned from."""
COMMON = {"encoder": "conv4", "optimizer": "adamw", "weight_decay": 1e-2, "lr": 2e-3, "probe_every": 0}
SCRATCH, FULL, STUDENT = 2e-3, 3e-4, 1e-3
"""Learning rates: at 5 labels a class --pilot gave from scratch 85.0, 84.5 and 83.5 % with 5e-4, 2e-3 and 5e-3, which
is no difference, and fine-tuned 77.0, 81.5 and 78.0 % with 1e-4, 3e-4 and 1e-3. The student's is distill's own."""
ARMS = ("scratch", "frozen", "middle", "full", "distilled")
SAID = {
    "scratch": "from scratch",
    "frozen": "linear, frozen",
    "middle": "linear, frozen, projector's first layer",
    "full": "fine-tuned",
    "distilled": "fine-tuned, distilled",
}


@dataclass(frozen=True)
class Few:
    """Which data, and how."""

    data: tyro.conf.Positional[tuple[str, ...]] = ("drawings", "photos")
    seeds: int = 3
    pilot: bool = False
    """Test on samples that are learned from otherwise, one seed, 5 labels, other rates; keep nothing."""
    table: bool = False
    """Run nothing, and show what there is."""


@dataclass(frozen=True)
class Task:
    """Samples to pre-train on, and samples to tell apart, some to learn from and some to test; and pre-training."""

    unlabeled: Images
    labeled: Images
    recipe: str
    flags: dict[str, Any]


def drawings() -> Task:
    """Characters of 20 alphabets to pre-train on, with those of eight others to be told apart, by other hands."""
    packed = np.load(DATA / "omniglot.npz")
    first, then = (torch.from_numpy(packed[f"{part}_x32"].astype(np.uint8)) for part in ("evaluation", "background"))
    identity, writer = (packed[f"background_{key}"].astype(np.int64) for key in ("identity", "writer"))
    chosen = np.unique(identity)[np.linspace(0, len(np.unique(identity)) - 1, CHARACTERS).astype(int)]
    rows = np.isin(identity, chosen).nonzero()[0]
    names = [f"character{c:03d}/{w:02d}" for c, w in zip(identity[rows], writer[rows], strict=True)]
    labeled = open_images(then[rows].numpy() * _stretch(then), labels=[name.split("/")[0] for name in names])
    learn = writer[rows] < HANDS
    labeled = dataclasses.replace(labeled, names=names, split=["train" if here else "test" for here in learn])
    pool = torch.cat([first, then[rows][torch.from_numpy(learn)]])
    return Task(open_images(pool.numpy() * _stretch(then)), labeled, "drawings", {"epochs": 3, "batch": 256})


def _stretch(pixels: torch.Tensor) -> np.uint8:
    return np.uint8(255 // int(pixels.max()))


def photos() -> Task:
    """Photographs of groceries, 43 coarse classes, in the parts that their authors made."""
    with tempfile.TemporaryDirectory() as name:
        with tarfile.open(DATA / "grocery_photos.tar") as tar:
            tar.extractall(name, filter="data")
        folder = Path(name) / "grocery_photos"
        images = open_images(folder, labels=folder / "labels.csv", label_column="coarse_name", side=40)
    images = dataclasses.replace(images, group=torch.full_like(images.group, MISSING))
    learn = images.subset(images.of_split("train").nonzero()[:, 0])
    unlabeled = dataclasses.replace(learn, label=torch.full_like(learn.label, MISSING), classes=[])
    return Task(unlabeled, images, "photos", {"epochs": 30, "batch": 128, "size": 32, "views": "simclr"})


TASKS: dict[str, Callable[[], Task]] = {"drawings": drawings, "photos": photos}


def main(asked: Few) -> None:
    """Run what is missing, seed by seed, then print the tables."""
    for name in asked.data:
        if name not in TASKS:
            raise ValueError(f"there is no data {name!r}; there are {', '.join(TASKS)}")
    tasks = {name: TASKS[name]() for name in asked.data} if not asked.table else {}
    for seed in range(1 if asked.pilot else asked.seeds):
        for name, task in tasks.items():
            if not asked.pilot and all(path(name, *one, seed).exists() for one in arms()):
                continue
            plan = plans.make("simclr", task.unlabeled, task.recipe, COMMON | task.flags | {"seed": seed})
            with trained(plan) as (run, took):
                if asked.pilot:
                    pilot(run, task)
                    continue
                print(f"{name} seed {seed}: pre-trained in {took['cpu_seconds']:.0f} CPU seconds", flush=True)
                for budget in BUDGETS:
                    series(name, run, task, budget, seed, took)
    if not asked.pilot:
        print("\n\n".join(table(name, asked.seeds) for name in asked.data))


def arms() -> list[tuple[str, int]]:
    """Every classifier of a seed: its arm and its budget."""
    return [(arm, budget) for budget in BUDGETS for arm in ARMS]


def path(data: str, arm: str, budget: int, seed: int) -> Path:
    """Where a result is kept."""
    return RESULTS / f"{data}-{arm}-{budget}-seed{seed}.json"


def series(name: str, run: Run, task: Task, budget: int, seed: int, took: dict[str, float]) -> None:
    """The classifiers of a budget, of which those that are missing are measured and kept."""
    folder = Path(tempfile.mkdtemp())
    try:
        for arm in ARMS:
            where = path(name, arm, budget, seed)
            if where.exists() and (arm != "full" or path(name, "distilled", budget, seed).exists()):
                continue
            began = time.process_time()
            made = classifier(arm, run, task.labeled, budget, seed, folder)
            found = {
                "data": name,
                "arm": arm,
                "per_class": budget,
                "seed": seed,
                **numbers(made),
                "cpu_seconds": round(time.process_time() - began, 1),
                "pretraining": took | {"samples": len(task.unlabeled)} if arm != "scratch" else {},
                "calibration": made.facts["calibration"],
                "facts": {k: v for k, v in made.facts.items() if k not in ("run", "teacher", "start", "notes")},
                "settings": run.config["settings"],
                "command": f"python -m benchmarks.fewlabels {name}",
            }
            keep(where, found)
            print(f"{name} {arm} {budget} seed {seed}: {found['accuracy']:.1f} %", flush=True)
    finally:
        shutil.rmtree(folder)


def classifier(
    arm: str, run: Run, labeled: Images, budget: int, seed: int, folder: Path, lr: float | None = None
) -> Classifier:
    """One of ARMS; the distilled one learns from the fine-tuned one in `folder`."""
    out, quiet = folder / arm, lambda text: None
    if arm == "distilled":
        student = {"from_run": str(run.path), "batch": 64, "lr": lr or STUDENT, "seed": seed}
        return distill(folder / "full", labeled, out=out, say=quiet, **student)
    return finetune(
        run,
        labeled,
        per_class=budget,
        train="full" if arm in ("scratch", "full") else "frozen",
        layer=1 if arm == "middle" else 0,
        weights="untrained" if arm == "scratch" else "trained",
        lr=lr or (SCRATCH if arm == "scratch" else FULL),
        seed=seed,
        out=out,
        say=quiet,
    )


def numbers(made: Classifier) -> dict[str, float]:
    """Accuracy and calibration error on the test samples, in per cent, from the result of a classifier."""
    values = json.loads((made.path / "results" / "finetune.json").read_text())["rows"][0]["values"]
    return {
        "accuracy": round(values["accuracy (%)"]["value"], 2),
        "calibration_error": round(values["calibration error (%)"]["value"], 2),
    }


def pilot(run: Run, task: Task) -> None:
    """Other learning rates, at 5 labels a class, tested on the last third of the samples that are learned from."""
    learn = task.labeled.subset(task.labeled.of_split("train").nonzero()[:, 0])
    order = torch.randperm(len(learn), generator=torch.Generator().manual_seed(0)).tolist()
    held = set(order[: len(learn) // 3])
    data = dataclasses.replace(learn, split=["test" if i in held else "train" for i in range(len(learn))])
    for arm, rates in (
        ("scratch", (5e-4, 2e-3, 5e-3)),
        ("full", (1e-4, 3e-4, 1e-3)),
        ("frozen", (1.0,)),  # no rate
        ("middle", (1.0,)),
        ("distilled", (3e-4, 1e-3, 3e-3)),
    ):
        for lr in rates:
            with tempfile.TemporaryDirectory() as name:
                if arm == "distilled":
                    classifier("full", run, data, 5, 0, Path(name))
                began = time.process_time()
                found = numbers(classifier(arm, run, data, 5, 0, Path(name), lr))
                print(f"{arm} lr {lr:g}: {found} in {time.process_time() - began:.0f} CPU seconds", flush=True)


def table(name: str, seeds: int) -> str:
    """The results of a data set as a Markdown table, means with 95 % t-intervals over seeds."""
    rows = [
        f"| {name} | " + " | ".join(f"{b} a class" for b in BUDGETS) + " | CPU seconds, 10 a class |",
        "|---|" + "---|" * (len(BUDGETS) + 1),
    ]
    found = {
        (arm, budget): [
            json.loads(p.read_text()) for seed in range(seeds) if (p := path(name, arm, budget, seed)).exists()
        ]
        for arm, budget in arms()
    }
    for arm in ARMS:
        cells = [_cell([one["accuracy"] for one in found[arm, budget]]) for budget in BUDGETS]
        seconds = [one["cpu_seconds"] for one in found[arm, BUDGETS[-1]]]
        rows.append(f"| {SAID[arm]} | {' | '.join(cells)} | {sum(seconds) / max(1, len(seconds)):.0f} |")
    for arm, other in (("middle", "scratch"), ("full", "scratch"), ("full", "frozen"), ("distilled", "full")):
        cells = []
        for budget in BUDGETS:
            pairs = zip(found[arm, budget], found[other, budget], strict=False)
            cells.append(_cell([a["accuracy"] - b["accuracy"] for a, b in pairs], signed=True))
        rows.append(f"| {SAID[arm]} over {SAID[other]} | {' | '.join(cells)} | |")
    return "\n".join(rows)


def _cell(values: list[float], signed: bool = False) -> str:
    if len(values) < 2:
        return f"{len(values)} runs"
    mean, low, high = over_seeds(values)
    if not signed:
        return f"{mean:.1f} [{max(0.0, low):.1f}, {min(100.0, high):.1f}]"
    seen = "" if low > 0 or high < 0 else ": no difference seen"
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]{seen}"


if __name__ == "__main__":
    main(tyro.cli(Few, args=sys.argv[1:]))
