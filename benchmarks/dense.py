"""Which pre-training tells what is where? `python -m benchmarks.dense`, or with names of methods.

nuclei: 160 training and 80 test microscope pictures with masks of cell nuclei; the mean IoU of nucleus and background
by a linear discriminant of frozen maps. cells: 292 training and 72 test pictures of blood cells with boxes of three
classes; AP50 and AP by a light head on frozen maps, trained once for each seed of pre-training.

Every method learns from random crops of the training pictures alone, with the same small encoder, optimizer and epochs.
untrained is the same encoder, of the same seed, before that. crossentropy, which takes labels of pictures, is told the
staining of nuclei's pictures; those of cells have no label. Settings were not chosen on these results. One file a run,
so that a stopped series goes on where it was.
"""

from __future__ import annotations

import json
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from benchmarks.bench.results import keep
from benchmarks.compare import DATA, trained
from benchmarks.learn import source
from nearfar.data import csv
from nearfar.dense.detection import detect
from nearfar.dense.segmentation import segment
from nearfar.evaluation.intervals import over_seeds
from nearfar.files import replace_csv
from nearfar.run import Run
from nearfar.training import plan as plans

RESULTS = Path(__file__).parent / "results" / "dense"
METHODS = ("simclr", "densecl", "byol", "crossentropy")
SHARED: dict[str, Any] = {"batch": 64, "optimizer": "adamw", "lr": 1e-3, "weight_decay": 1e-2, "probe_every": 0}
MEASURES = {"nuclei": ("mIoU (%)", "Dice (%)"), "cells": ("AP50 (%)", "AP (%)")}
Task = Literal["nuclei", "cells"]


@dataclass(frozen=True)
class Dense:
    """Which methods, on what, and how long."""

    methods: tyro.conf.Positional[tuple[str, ...]] = METHODS
    """Names of methods."""
    tasks: tuple[Task, ...] = ("nuclei", "cells")
    """What is told."""
    seeds: int = 3
    """Runs of each."""
    epochs: int = 200
    """Passes over the training pictures, of which each gives two crops."""
    encoder: str = "conv4"
    """The network."""
    size: int = 64
    """Side of the crops."""
    steps: int = 300
    """Of the head that finds boxes."""
    table: bool = False
    """Run nothing, and show what there is."""


def main(asked: Dense) -> None:
    """Run what is missing, then print the tables."""
    if not asked.table:
        with tempfile.TemporaryDirectory() as folder:
            for seed in range(asked.seeds):
                for task in asked.tasks:
                    for method in asked.methods:
                        if fits(method, task) and not path(task, method, seed, asked).exists():
                            one(task, method, seed, asked, unpacked(task, Path(folder)))
    for task in asked.tasks:
        print(table(task, asked) + "\n")


def fits(method: str, task: Task) -> bool:
    """Whether the pictures have the labels that the method takes."""
    return method != "crossentropy" or task == "nuclei"


def path(task: Task, method: str, seed: int, asked: Dense) -> Path:
    """Where the result of a run is kept."""
    return RESULTS / f"{task}-{method}-{asked.encoder}-{asked.size}px-{asked.epochs}-seed{seed}.json"


def unpacked(task: Task, folder: Path) -> Path:
    """The list of the pictures of a task, with split, unpacked once."""
    name = {"nuclei": "nuclei", "cells": "bccd"}[task]
    if not (folder / name).exists():
        with tarfile.open(DATA / f"{name}.tar") as archive:
            archive.extractall(folder, filter="data")
    if task == "nuclei":
        return folder / name / "index.csv"
    listed = folder / name / "list.csv"
    if not listed.exists():
        _, records = csv.read_records(folder / name / "boxes.csv")
        split = {row["path"]: row["split"] for _, row in records}
        # No choice is made on the split val: it is learned from.
        rows = [[image, "test" if of == "test" else "train"] for image, of in split.items()]
        replace_csv(listed, iter([["path", "split"], *rows]))
    return listed


def one(task: Task, method: str, seed: int, asked: Dense, data: Path) -> None:
    """Train, measure and keep."""
    labels = {"label_column": "kind"} if method == "crossentropy" else {}
    given = SHARED | {"encoder": asked.encoder, "size": asked.size, "epochs": asked.epochs, "seed": seed} | labels
    with trained(plans.make(method, str(data), None, given)) as (run, took):
        began = time.process_time()
        made = measured(run, task, data, asked, seed)
        seconds = time.process_time() - began
    rows = {row["name"]: {name: row["values"][name]["value"] for name in MEASURES[task]} for row in made["rows"]}
    result = {
        "task": task,
        "method": method,
        "source": source(method),
        "seed": seed,
        "flags": given,
        "results": rows,
        "chosen": made["protocol"].get("chosen"),
        "protocol": made["protocol"].get("version"),
        "evaluation_cpu_seconds": round(seconds, 1),
        **took,
    }
    size = f"--epochs {asked.epochs} --encoder {asked.encoder} --size {asked.size} --steps {asked.steps}"
    command = f"python -m benchmarks.dense {method} --tasks {task} {size}"
    keep(path(task, method, seed, asked), result | {"command": command})
    print(f"{path(task, method, seed, asked).stem}: {rows}, {took['cpu_seconds']} + {seconds:.0f} CPU s", flush=True)


def measured(run: Run, task: Task, data: Path, asked: Dense, seed: int) -> dict[str, Any]:
    """The table of the task."""
    if task == "nuclei":
        return segment(run, data, "mask", instances=True, seed=seed)
    return detect(run, data, data.parent / "boxes.csv", box_origin=1, steps=asked.steps, seeds=1, seed=seed)


def table(task: Task, asked: Dense) -> str:
    """The results of all seeds as a Markdown table, with 95 % t-intervals over seeds."""
    first, second = MEASURES[task]
    lines = [
        f"| {task} | seeds | {first} | gain over untrained | {second} | gain | CPU seconds a run |",
        "|---|---|---|---|---|---|---|",
    ]
    for method in asked.methods:
        there = [path(task, method, seed, asked) for seed in range(asked.seeds)]
        found = [json.loads(where.read_text(encoding="utf-8")) for where in there if where.exists()]
        if not found:
            continue
        old = " (changed since)" if any(result["source"] != source(method) for result in found) else ""
        cells = []
        for name in (first, second):
            ours = [result["results"]["trained encoder"][name] for result in found]
            gains = [a - result["results"]["untrained encoder"][name] for a, result in zip(ours, found, strict=True)]
            cells += [
                f"{sum(ours) / len(ours):.1f}",
                f"{over_seeds(gains):+.1f}" if len(gains) > 1 else f"{gains[0]:+.1f}",
            ]
        seconds = sum(result["cpu_seconds"] + result["evaluation_cpu_seconds"] for result in found) / len(found)
        lines.append(f"| {method}{old} | {len(found)} | {' | '.join(cells)} | {seconds:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(tyro.cli(Dense, args=sys.argv[1:]))
