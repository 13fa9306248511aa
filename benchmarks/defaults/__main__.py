"""Which defaults are good on data that nobody has seen? `python -m benchmarks.defaults`: see `choice.py`."""

from __future__ import annotations

import os

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # before torch is loaded

import fcntl
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
import tyro

from benchmarks.bench.results import keep
from benchmarks.defaults import choice, measure, plan, sets
from benchmarks.defaults.candidates import CANDIDATES
from nearfar.files import replace_text


@dataclass(frozen=True)
class Defaults:
    """Which runs. What is there is skipped, so that a series goes on where it was; several may work on one."""

    methods: tyro.conf.Positional[tuple[str, ...]] = ()
    """All, if none is given."""
    sets: tuple[str, ...] = ()
    """All, if none is given."""
    configs: tuple[str, ...] = ()
    """These and no others; if none is given, what the plan wants: all for a minute, then the chosen ones for longer."""
    minutes: tuple[float, ...] = choice.BUDGETS
    """Budgets, in CPU-minutes."""
    seeds: tuple[int, ...] = plan.SEEDS
    """Of the weights and of all that is random, where configurations are named."""
    plan: bool = False
    """Print which runs are missing, and what they cost."""
    raw: bool = False
    """Measure raw pixels as well."""
    table: bool = False
    """Print what was chosen without each set, and what it does there."""
    write: bool = False
    """The same, into docs/results.md."""
    costs: bool = False
    """Measure what a sample costs."""


def main(asked: Defaults) -> None:
    """Run what is missing."""
    torch.set_num_threads(1)
    if asked.costs:
        measure.measure_costs()
        return
    if asked.write:
        choice.write(tuple(CANDIDATES))
        return
    if asked.table:
        print(choice.table(asked.methods or tuple(CANDIDATES)))
        return
    names = [name for name in asked.sets or sets.names() if not sets.missing(name)]
    if asked.raw:
        for name in names:
            with claimed(measure.baseline_path(name, "raw", 0)) as file:
                if file:
                    keep(file, measure.raw(name))
    if asked.plan:
        print(plan.told(list(jobs(asked, names))))
        return
    for job in jobs(asked, names):
        run(*job)


def jobs(asked: Defaults, names: list[str]) -> Iterator[plan.Job]:
    """Those of the plan, or of the configurations that are named."""
    methods = asked.methods or tuple(CANDIDATES)
    if not asked.configs:
        yield from dict.fromkeys(plan.jobs(methods, names, asked.minutes))
        return
    for minutes, seed, method in product(asked.minutes, asked.seeds, methods):
        for config in asked.configs:
            if config in CANDIDATES[method]:
                yield from (plan.Job(name, method, config, minutes, seed) for name in names)


def run(name: str, method: str, config: str, minutes: float, seed: int) -> None:
    """One run, and the untrained encoder that it is compared with, where they are not there yet."""
    with claimed(measure.baseline_path(name, "untrained", seed)) as file:
        if file:
            keep(file, measure.untrained(name, seed))
    with claimed(measure.RESULTS / name / "about.json") as file:
        if file:
            replace_text(file, json.dumps(measure.about(name)) + "\n")
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
