"""Are wrong labels found? `python -m benchmarks.suspects`, or with drawings or photos.

5 % of the labels are turned at random, drawn with the seed, each to another class; SimCLR has learned without labels
from other samples (of photos, from those of the part train), as in `benchmarks.fewlabels`. Precision: of the suspects,
how many were turned; recall: of the turned, how many are suspects; and how many labels are suspects where none was
turned, which are errors of the data, or ours. That the given class must
be unlikely (`NOISE`) was added after photos, seed 0, had shown a precision of 18.7 % and 113 suspects where none was
turned; its bound was chosen on made-up clusters. One file a run, so that a stopped series goes on where it was.
"""

from __future__ import annotations

import json
import sys
import time
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
from nearfar.evaluation.suspects import suspects
from nearfar.run import Run
from nearfar.training import plan as plans

RESULTS = Path(__file__).parent / "results" / "suspects"
SHARE = 0.05


@dataclass(frozen=True)
class Asked:
    """Which data, and how often."""

    data: tyro.conf.Positional[tuple[str, ...]] = ("drawings", "photos")
    seeds: int = 3
    """Draws of what is turned, and runs."""
    table: bool = False
    """Run nothing, and show what there is."""


def main(asked: Asked) -> None:
    """Run what is missing, then print the table."""
    for name in asked.data:
        task = None
        for seed in range(0 if asked.table else asked.seeds):
            if not path(name, seed).exists():
                task = task or TASKS[name]()
                keep(path(name, seed), one(name, task, seed))
    print(table(asked.data, asked.seeds))


def path(name: str, seed: int) -> Path:
    """Where the result of a run is kept."""
    return RESULTS / f"{name}-seed{seed}.json"


def turned(label: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """The labels, of which a share is another class, and which are: N, and positions."""
    generator = torch.Generator().manual_seed(seed)
    known = (label != MISSING).nonzero()[:, 0]
    rows = known[torch.randperm(len(known), generator=generator)[: round(share * len(known))]]
    classes = int(label.max()) + 1
    given = label.clone()
    given[rows] = (label[rows] + torch.randint(1, classes, (len(rows),), generator=generator)) % classes
    return given, rows


def one(name: str, task: Task, seed: int) -> dict[str, Any]:
    """A run, and what is found by it."""
    plan = plans.make("simclr", task.unlabeled, task.recipe, COMMON | task.flags | {"seed": seed})
    with trained(plan) as (run, took):
        found = measured(run, task, seed)
    said = {key: found[key] for key in ("precision", "recall", "suspects_on_clean")}
    print(f"{name} seed {seed}: {said}", flush=True)
    return {
        "data": name,
        "seed": seed,
        **found,
        "pretraining": took,
        "command": f"python -m benchmarks.suspects {name}",
    }


def measured(run: Run, task: Task, seed: int) -> dict[str, Any]:
    """Precision and recall, in per cent."""
    began = time.process_time()
    features, label = run.rows(task.labeled), task.labeled.label
    given, wrong = turned(label, SHARE, seed)
    found = suspects(features, given, seed=seed)
    hit = torch.isin(found.index, wrong)
    right = label[found.index[hit]] == found.proposed[hit]
    return {
        "samples": len(label),
        "classes": len(task.labeled.classes),
        "turned": len(wrong),
        "confirmed": round(100 * found.confirmed, 2),
        "suspects": len(found.index),
        "precision": round(100 * float(hit.double().mean()), 2) if len(hit) else None,
        "recall": round(100 * int(hit.sum()) / len(wrong), 2),
        "proposed_right": round(100 * float(right.double().mean()), 2) if len(right) else None,
        "suspects_on_clean": len(suspects(features, label, seed=seed).index),
        "cpu_seconds": round(time.process_time() - began, 1),
    }


def table(names: tuple[str, ...], seeds: int) -> str:
    """The results as a Markdown table: means over seeds, with the lowest and the highest."""
    heads = ("data", "samples", "classes", "turned", "precision, %", "recall, %", "proposed class right, %")
    lines = [f"| {' | '.join(heads)} | suspects, none turned |", "|---|---|---|---|---|---|---|---|"]
    for name in names:
        there = [json.loads(path(name, s).read_text(encoding="utf-8")) for s in range(seeds) if path(name, s).exists()]
        if not there:
            lines.append(f"| {name} | not measured | | | | | | |")
            continue
        keys = ("precision", "recall", "proposed_right", "suspects_on_clean")
        cells = [_spread([one[key] for one in there]) for key in keys]
        facts = [f"{there[0][key]:,}" for key in ("samples", "classes", "turned")]
        runs = "" if len(there) == seeds else f" ({len(there)} of {seeds} runs)"
        lines.append(f"| {name}{runs} | {' | '.join([*facts, *cells])} |")
    return "\n".join(lines)


def _spread(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "n/a"
    return f"{sum(known) / len(known):.1f} ({min(known):g} to {max(known):g})"


if __name__ == "__main__":
    main(tyro.cli(Asked, args=sys.argv[1:]))
