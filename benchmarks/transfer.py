"""Which method serves other data? Pre-trained at one budget on photographs and on drawings, measured on seven sets.

    python -m benchmarks.transfer            # all that is missing: one file a cell, so that it goes on where it was
    python -m benchmarks.transfer simclr byol --sources photographs --seeds 1
    python -m benchmarks.transfer --table    # the tables of docs/results.md, of what is there

conv4 at 32 px, 5,000 images for ten epochs in batches of 128, views and rates by each method's own recipe; then
`nearfar transfer`'s measures on frozen features, whose choices are made on training rows. photographs are the first
5,000 training images of CIFAR-10; drawings are Omniglot's evaluation alphabets, by seven of twenty drawers. Methods
that learn from labels have those of their source. No test image of any set is trained on.
"""

from __future__ import annotations

import os

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # before torch is loaded

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import tyro

from benchmarks.bench.results import keep
from benchmarks.compare import trained
from benchmarks.defaults import sets
from nearfar.evaluation.intervals import PERCENT, Interval, of_answers, over_seeds
from nearfar.evaluation.protocol import packed, unpacked
from nearfar.modalities.image.samples import Images, open_images
from nearfar.run import Run
from nearfar.studies import across_sets
from nearfar.studies.across_sets import KNN, LINEAR, Cell, Told
from nearfar.studies.asked import Transfer as Asked
from nearfar.studies.transfer import Row, frozen, opened
from nearfar.training import plan as plans

RESULTS = Path(__file__).parent / "results" / "transfer"
METHODS = (
    *("simclr", "moco", "byol", "swav", "barlow", "dcl", "sce", "alignuniform", "imix", "mochi"),
    *("instdisc", "rotation", "supcon", "crossentropy"),
)
SOURCES = {"photographs": "cifar-5k", "drawings": "characters"}
SETS = {
    "photographs": "cifar-5k",
    "groceries": "groceries",
    "nuclei": "nuclei",
    "blood cells": "blood",
    "emoji": "emoji",
    "alphabets": "alphabets",
    "characters": "characters",
}
"""By the name in the table, that of `benchmarks.defaults.sets`."""
FLAGS: dict[str, Any] = {"encoder": "conv4", "epochs": 10, "batch": 128, "probe_every": 0}
UNTRAINED, RAW = "untrained", "raw"


@dataclass(frozen=True)
class Transfer:
    """Which cells."""

    methods: tyro.conf.Positional[tuple[str, ...]] = ()
    """All fourteen, if none is given."""
    sources: tuple[str, ...] = tuple(SOURCES)
    """What is learned from: photographs, drawings."""
    seeds: int = 3
    """Trainings of each method."""
    table: bool = False
    """Measure nothing, and print the tables of what is there."""


def main(asked: Transfer) -> None:
    """Measure what is missing, then print the tables."""
    names = asked.methods or METHODS
    if not asked.table:
        torch.set_num_threads(1)
        for seed in range(asked.seeds):
            for method in names:
                for source in asked.sources:
                    one(method, source, seed)
    for source in asked.sources:
        if list(RESULTS.glob(f"{source}-*.json")):
            print("\n" + "\n\n".join(table(source, names, title) for title in (LINEAR, KNN)))


def path(source: str, method: str, seed: int, name: str) -> Path:
    """Of a cell."""
    return RESULTS / f"{source}-{method}-seed{seed}-{name.replace(' ', '_')}.json"


def one(method: str, source: str, seed: int) -> None:
    """Train once, if a cell of it is missing, and measure what is missing; the untrained encoder and pixels with it."""
    wanted = [name for name in SETS if not path(source, method, seed, name).exists()]
    if not wanted:
        return
    data = sets.load(SOURCES[source]).train
    plan = plans.make(method, data, None, FLAGS | {"seed": seed})
    with trained(plan) as (run, took):
        rows = []  # those that other methods share come first: where all cells of a method are there, so are they
        for other, row in ((UNTRAINED, Row(UNTRAINED, run, "untrained")), (RAW, Row(RAW, run, "raw"))):
            if other == UNTRAINED or not seed:
                missing = [name for name in SETS if not path(source, other, seed, name).exists()]
                rows.append((other, row, missing))
        for other, row, missing in [*rows, (method, Row(method, run, "trained"), wanted)]:
            for name in missing:
                keep(path(source, other, seed, name), measured(row, run, name, plan, took))
            if missing:
                print(f"{source} {other} seed {seed}: {len(missing)} cells", flush=True)


def measured(row: Row, run: Run, name: str, plan: plans.Plan, took: dict[str, float]) -> dict[str, Any]:
    """A cell: the values of a row on a set, and how they came about."""
    began = time.process_time()
    data = opened(run, whole(name), labels=None, label_column="", seed=0)
    seen = int(run.seen(data.samples)[data.tested].sum())
    assert not seen, f"{seen} test images of {name} were trained on"
    ((_, values),) = frozen(row, data, Asked(runs=("run",), to="sets")).items()
    if not (about := RESULTS / f"{name.replace(' ', '_')}.json").exists():
        group = None if data.group is None else data.group[data.tested].tolist()
        keep(about, {"set": name, "learned": len(data.splits[0][0]), "tested": len(data.tested), "group": group})
    how = {"flags": FLAGS, "method": plan.method, "recipe": plan.recipe, **took} if row.role == "trained" else {}
    return {
        "set": name,
        "values": {title: _short(cell) for title, cell in values.items()},
        **how,
        "measured_cpu_seconds": round(time.process_time() - began, 1),
        "threads": torch.get_num_threads(),
        "command": "python -m benchmarks.transfer",
    }


def _short(cell: Cell) -> Cell:
    """As it is kept: which answers are right only where there is one draw of labels, as ten would fill the folder."""
    return {
        key: round(value, 3) if isinstance(value, float) else value
        for key, value in cell.items()
        if key != "right" or value.startswith("1x")
    }


@cache
def whole(name: str) -> Images:
    """Both parts of a set as one, with a column split; test samples of one unit are a group."""
    data = sets.load(SETS[name])
    parts = (data.train, data.test)
    pixels = torch.cat([part.pixels(torch.arange(len(part))) for part in parts]).permute(0, 2, 3, 1).numpy()
    images = open_images(pixels)
    split = ["train"] * len(data.train) + ["test"] * len(data.test)
    # A unit such as a character has drawings on both sides by design: those that are learned from are kept together
    # where something is chosen, and those that are tested in intervals.
    group = torch.cat([data.group, data.tested + int(data.group.max()) + 1])
    alone = len(group.unique()) == len(group)
    return replace(
        images,
        label=torch.cat([part.label for part in parts]),
        classes=data.train.classes,
        split=split,
        group=images.group if alone else group,
    )


def table(source: str, methods: Sequence[str], title: str = LINEAR) -> str:
    """What is there of a source, in Markdown: methods by sets, over seeds; how far the sets agree, and what follows."""
    summary = summarized(source, methods)
    counts = {len(list(RESULTS.glob(f"{source}-{method}-seed*-photographs.json"))) for method in summary["runs"]}
    seeds = " to ".join(str(n) for n in sorted({min(counts), max(counts)}))
    parts = [f"**Pre-trained on {source}, {title}, seeds: {seeds}**", across_sets.markdown(summary, title)]
    if pairs := summary["correlation"].get(title):
        rows = ["| sets | methods | Spearman | Pearson |", "|---|---|---|---|"]
        for pair in pairs:
            cells = (f"{v:+.2f} [{low:+.2f}, {high:+.2f}]" for v, low, high in (pair["spearman"], pair["pearson"]))
            rows.append(f"| {pair['of']} and {pair['and']} | {pair['runs']} | {' | '.join(cells)} |")
        parts.append("\n".join(rows))
    if title == summary["main"]:
        parts.append("\n".join(f"- {sentence}" for sentence in across_sets.sentences(summary)))
    return "\n\n".join(parts)


def summarized(source: str, methods: Sequence[str]) -> across_sets.Summary:
    """What `nearfar.studies.across_sets.summarize` makes of what is there."""
    cells: dict[str, dict[str, dict[str, Cell]]] = {}
    groups = {name: _group(name) for name in SETS}
    for method in (*methods, UNTRAINED, RAW):
        for name in SETS:
            files = sorted(RESULTS.glob(path(source, method, 0, name).name.replace("seed0", "seed*")))
            if found := [json.loads(file.read_text())["values"] for file in files]:
                cells.setdefault(method, {})[name] = joined(found, groups[name], name)
    told = Told(
        cells=cells,
        sets=list(SETS),
        trained=[method for method in methods if method in cells],
        untrained={UNTRAINED: "conv4"},
        architecture=dict.fromkeys(methods, "conv4"),
        raw=[RAW],
        groups=groups,
        refused={},
        seen={},
        own={},
    )
    return across_sets.summarize(told)


def _group(name: str) -> list[int] | None:
    about = RESULTS / f"{name.replace(' ', '_')}.json"
    return json.loads(about.read_text())["group"] if about.exists() else None


def joined(values: Sequence[dict[str, Cell]], group: list[int] | None, of: str) -> dict[str, Cell]:
    """The cells of several seeds as one: where answers are kept, those of all, with an interval over test images and
    seeds; else the mean with an interval over seeds.

    of: the set, whose tested images are the same in all cells.
    """
    made = {}
    for title in values[0]:
        cells = [one[title] for one in values]
        if all("right" in cell for cell in cells):
            right = torch.cat([unpacked(cell["right"]) for cell in cells])
            interval = of_answers(right, group=None if group is None else torch.tensor(group))
            made[title] = {"right": packed(right), "of": of}
        elif len(cells) > 1:
            interval, made[title] = over_seeds([cell["accuracy"] for cell in cells], bounds=PERCENT), {"of": ""}
        else:
            interval, made[title] = Interval(*(cells[0][end] for end in ("accuracy", "low", "high"))), {"of": ""}
        made[title] |= {"accuracy": interval.mean, "low": interval.low, "high": interval.high}
    return made


if __name__ == "__main__":
    main(tyro.cli(Transfer, args=sys.argv[1:]))
