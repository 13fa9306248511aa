"""Which defaults are good on data that nobody has seen? `python -m benchmarks.defaults`: see `table.py`."""

from __future__ import annotations

import os

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # before torch is loaded

import fcntl
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from benchmarks.bench.results import keep
from benchmarks.defaults import measure, sets
from benchmarks.defaults.candidates import CANDIDATES


@dataclass(frozen=True)
class Defaults:
    """Which runs. What is there is skipped, so that a series goes on where it was; several may work on one."""

    methods: tyro.conf.Positional[tuple[str, ...]] = ()
    """All, if none is given."""
    sets: tuple[str, ...] = ()
    """All, if none is given."""
    configs: tuple[str, ...] = ()
    """All of each method, if none is given."""
    minutes: tuple[float, ...] = (1.0,)
    """Budgets, in CPU-minutes."""
    seeds: tuple[int, ...] = (0,)
    """Of the weights and of all that is random."""
    raw: bool = False
    """Measure raw pixels as well."""
    costs: bool = False
    """Measure what a sample costs."""


def main(asked: Defaults) -> None:
    """Run what is missing."""
    torch.set_num_threads(1)
    if asked.costs:
        measure.measure_costs()
        return
    names = [name for name in asked.sets or sets.names() if not sets.missing(name)]
    if asked.raw:
        for name in names:
            with claimed(measure.baseline_path(name, "raw", 0)) as file:
                if file:
                    keep(file, measure.raw(name))
    for minutes in asked.minutes:
        for seed in asked.seeds:
            for method in asked.methods or CANDIDATES:
                for config in asked.configs or CANDIDATES[method]:
                    for name in names:
                        run(name, method, config, minutes, seed)


def run(name: str, method: str, config: str, minutes: float, seed: int) -> None:
    """One run, and the untrained encoder that it is compared with, where they are not there yet."""
    with claimed(measure.baseline_path(name, "untrained", seed)) as file:
        if file:
            keep(file, measure.untrained(name, seed))
    with claimed(measure.path(name, method, config, minutes, seed)) as file:
        if file:
            result = measure.trained(name, method, config, minutes, seed)
            keep(file, result)
            knn, linear = result["knn"]["accuracy"], result["linear"]["accuracy"]
            print(f"{name} {method} {config} {minutes:g} min seed {seed}: kNN {knn} linear {linear}", flush=True)


@contextmanager
def claimed(file: Path) -> Iterator[Path | None]:
    """The file, where it is not there and no other process of this machine is making it; else None."""
    if file.exists():
        yield None
        return
    folder = Path(tempfile.gettempdir()) / "nearfar-defaults"
    folder.mkdir(exist_ok=True)
    with (folder / f"{file.parent.name}-{file.name}").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        yield None if file.exists() else file


if __name__ == "__main__":
    main(tyro.cli(Defaults, args=sys.argv[1:]))
