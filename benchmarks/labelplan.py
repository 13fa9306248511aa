"""Do planned labels serve better than labels drawn by chance? `python -m benchmarks.labelplan`, on drawings and photos.

Data, pre-training and test samples are those of benchmarks/fewlabels.py. So many of the samples to learn from get their
label: drawn at random (the mean of DRAWS draws), chosen by `nearfar label-plan` for coverage, or the first half so and
the second by how unsure a classifier on the first is. A linear classifier on frozen features learns from them; a class
of which no sample was chosen is never named, and its test samples count as wrong. One result file a seed.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

from benchmarks.bench.results import keep
from benchmarks.compare import trained
from benchmarks.fewlabels import COMMON, TASKS, Task
from nearfar.batch import MISSING
from nearfar.evaluation.intervals import over_seeds
from nearfar.fewlabels.finetuning import finetune
from nearfar.fewlabels.frozen import frozen
from nearfar.fewlabels.label_plan import label_plan
from nearfar.modalities.image.samples import Images
from nearfar.run import Run
from nearfar.training import plan as plans

RESULTS = Path(__file__).parent / "results" / "labelplan"
TIMES = (1, 2, 4)
"""Labels, as multiples of the number of classes."""
DRAWS = 5
SAID = {"random": "at random", "coverage": "coverage", "uncertainty": "half coverage, half uncertainty"}


@dataclass(frozen=True)
class Ask:
    """Which data, and how often."""

    data: tyro.conf.Positional[tuple[str, ...]] = tuple(TASKS)
    seeds: int = 3
    table: bool = False
    """Run nothing, and show what there is."""


def main(asked: Ask) -> None:
    """Run what is missing, then print the tables."""
    for name in asked.data:
        if name not in TASKS:
            raise ValueError(f"there is no data {name!r}; there are {', '.join(TASKS)}")
        for seed in () if asked.table else range(asked.seeds):
            where = RESULTS / f"{name}-seed{seed}.json"
            if not where.exists():
                task = TASKS[name]()
                plan = plans.make("simclr", task.unlabeled, task.recipe, COMMON | task.flags | {"seed": seed})
                with trained(plan) as (run, took):
                    found = {"data": name, "seed": seed, "budgets": measured(run, task, seed), "pretraining": took}
                keep(where, found | {"command": f"python -m benchmarks.labelplan {name}"})
                print(f"{where.stem}: {found['budgets']}", flush=True)
        print(table(name), end="\n\n")


def measured(run: Run, task: Task, seed: int) -> dict[str, dict[str, Any]]:
    """Of each number of labels and each way to choose them: accuracy in per cent, and classes that have a label."""
    data, features = task.labeled, run.embed(task.labeled)
    pool = data.of_split("train").nonzero()[:, 0]
    out: dict[str, dict[str, Any]] = {}
    for times in TIMES:
        count = times * len(data.classes)
        chosen = {"random": [drawn(pool, count, seed, draw) for draw in range(DRAWS)]}
        chosen |= {"coverage": [planned(run, data, count, seed)], "uncertainty": [asked_twice(run, data, count, seed)]}
        out[str(count)] = {
            way: {
                "accuracy": round(sum(accuracy(features, data, rows, seed) for rows in sets) / len(sets), 2),
                "classes": sum(len(data.label[rows].unique()) for rows in sets) / len(sets),
            }
            for way, sets in chosen.items()
        }
    return out


def drawn(pool: Tensor, count: int, seed: int, draw: int) -> Tensor:
    """Samples to label, whichever."""
    generator = torch.Generator().manual_seed(1000 * seed + draw)
    return pool[torch.randperm(len(pool), generator=generator)[:count]]


def planned(run: Run, data: Images, count: int, seed: int) -> Tensor:
    """Samples to label, by coverage, when none has a label."""
    return label_plan(run, data, labels="none", count=count, by="coverage", seed=seed).chosen


def asked_twice(run: Run, data: Images, count: int, seed: int) -> Tensor:
    """The first half by coverage; then, with a classifier that learned from these, those of which it is unsure."""
    first = planned(run, data, count // 2, seed)
    known = torch.full_like(data.label, MISSING)
    known[first] = data.label[first]
    data = dataclasses.replace(data, label=known)
    with tempfile.TemporaryDirectory() as folder:
        made = finetune(run, data, train="frozen", seed=seed, out=Path(folder) / "first", say=lambda text: None)
        then = label_plan(made, data, count=count - count // 2, by="uncertainty", seed=seed)
    return torch.cat([first, then.chosen])


def accuracy(features: Tensor, data: Images, rows: Tensor, seed: int) -> float:
    """Of a linear classifier that learns from some rows, on the test samples of all classes, in per cent."""
    classes, label = data.label[rows].unique(return_inverse=True)
    layer, *_ = frozen(features[rows], label, seed=seed)
    test = data.of_split("test") & (data.label != MISSING)
    with torch.no_grad():
        said = classes[layer(features[test]).argmax(1)]
    return 100 * float((said == data.label[test]).double().mean())


def table(name: str) -> str:
    """The results of a data set as a Markdown table, with 95 % t-intervals over seeds; differences seed by seed."""
    found = [json.loads(path.read_text())["budgets"] for path in sorted(RESULTS.glob(f"{name}-seed*.json"))]
    if len(found) < 2:
        return f"{name}: {len(found)} runs"
    budgets = list(found[0])

    def row(title: str, cell: Any) -> str:
        return f"| {title} | {' | '.join(cell(budget) for budget in budgets)} |"

    def values(way: str, budget: str, what: str = "accuracy") -> list[float]:
        return [one[budget][way][what] for one in found]

    def gain(way: str, budget: str) -> str:
        gap = over_seeds([a - b for a, b in zip(values(way, budget), values("random", budget), strict=True)])
        return f"{gap:+.1f}" + (": no difference seen" if gap.low <= 0 <= gap.high else "")

    rows = [row(name, lambda b: f"{b} labels"), "|---|" + "---|" * len(budgets)]
    rows += [row(f"{said}, %", lambda b, w=way: f"{over_seeds(values(w, b)):.1f}") for way, said in SAID.items()]
    rows += [row(f"{SAID[way]} over random", lambda b, w=way: gain(w, b)) for way in ("coverage", "uncertainty")]
    rows += [
        row(f"classes with a label, {said}", lambda b, w=way: f"{sum(values(w, b, 'classes')) / len(found):.0f}")
        for way, said in SAID.items()
    ]
    return "\n".join(rows)


if __name__ == "__main__":
    main(tyro.cli(Ask, args=sys.argv[1:]))
