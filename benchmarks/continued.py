"""Does training on from given weights help? `python -m benchmarks.continued`, or with names of WAYS: three data sets.

The start is SimCLR on 20,000 images of CIFAR-10 without their labels, one for each seed: some two minutes of a CPU. It
is trained on on other images, without labels, for a number of steps that is the same for all ways, and then measured on
the test part by kNN and by a linear classifier, beside raw pixels, random weights and the start as it was given.

continue-METHOD: the recipe `continue`.  naive-simclr: the recipe of a training from random weights at some ten times
its rate, which is to ruin the start, and to be told by the alarm.  scratch-simclr: that recipe as it is, from random
weights.

One file a cell, so that a stopped series goes on where it was. No setting was chosen on these results.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro

from benchmarks.bench.results import keep
from benchmarks.compare import trained
from benchmarks.defaults import sets
from benchmarks.learn import source
from nearfar.evaluation.alarms import alarms
from nearfar.evaluation.intervals import over_seeds
from nearfar.export.encoder import export_encoder
from nearfar.report.record import read
from nearfar.report.verdict import answers
from nearfar.training import plan as plans

RESULTS = Path(__file__).parent / "results" / "continued"
STARTS = Path(tempfile.gettempdir()) / "nearfar-continued"
"""Where the weights of starts are, which are too large to be kept with results."""
DATA = ("groceries", "blood", "nuclei")
PRETRAINED, EPOCHS = "cifar-20k", 6
WAYS: dict[str, tuple[str, str | None, dict[str, Any]]] = {
    "continue-simclr": ("simclr", "continue", {}),
    "continue-byol": ("byol", "continue", {}),
    "continue-diet": ("diet", "continue", {}),
    "naive-simclr": ("simclr", None, {"lr": 0.03}),
    "scratch-simclr": ("simclr", None, {}),
}
"""Method, recipe and flags, by the name of a way."""
MEASURES = ("kNN (%)", "linear (%)")


@dataclass(frozen=True)
class Continued:
    """Which ways, and how long."""

    ways: tyro.conf.Positional[tuple[str, ...]] = ()
    """All that WAYS names, if none is given."""
    data: tuple[str, ...] = DATA
    """Data sets of the bench of defaults."""
    network: str = "conv4"
    """The encoder: conv4 or resnet10t."""
    seeds: int = 3
    """Starts, and runs from each."""
    steps: int = 600
    """Optimization steps of each run."""
    table: bool = False
    """Run nothing, and show what there is."""


def main(asked: Continued) -> None:
    """Run what is missing, then print the table."""
    ways = asked.ways or tuple(WAYS)
    if unknown := [way for way in ways if way not in WAYS]:
        raise ValueError(f"there is no way {unknown[0]!r}; there are {', '.join(WAYS)}")
    for seed in range(asked.seeds if not asked.table else 0):
        for name in asked.data:
            for way in ways:
                where = path(asked, name, way, seed)
                if not where.exists():
                    result = one(asked, name, way, seed)
                    keep(where, result)
                    values = {row: cells[MEASURES[0]] for row, cells in result["results"].items()}
                    print(f"{where.stem}: {values}, {result['alarms']}, {result['cpu_seconds']} s", flush=True)
    print(table(asked, ways))


def path(asked: Continued, name: str, way: str, seed: int) -> Path:
    """The file of a cell."""
    return RESULTS / f"{name}-{asked.network}-{way}-{asked.steps}steps-seed{seed}.json"


def start(network: str, seed: int) -> Path:
    """The folder of an export to begin with; trained unless it is there."""
    folder = STARTS / f"{network}-{PRETRAINED}-{EPOCHS}epochs-seed{seed}"
    if not (folder / "encoder.json").exists():
        flags = {"encoder": network, "epochs": EPOCHS, "seed": seed, "probe_every": 0, "device": "cpu"}
        with trained(plans.make("simclr", sets.load(PRETRAINED).train, None, flags)) as (run, took):
            export_encoder(run.encoder, folder)
            print(f"{folder.name}: {took['cpu_seconds']} s", flush=True)
    return folder


def one(asked: Continued, name: str, way: str, seed: int) -> dict[str, Any]:
    """A run, measured."""
    data, (method, recipe, given) = sets.load(name), WAYS[way]
    weights = {} if way.startswith("scratch") else {"weights": str(start(asked.network, seed))}
    batch = 64
    epochs = max(1, round(asked.steps / (len(data.train) // batch)))
    flags = (
        given | weights | {"encoder": asked.network, "batch": batch, "epochs": epochs, "seed": seed, "device": "cpu"}
    )
    test = replace(data.test, group=data.tested)
    with trained(plans.make(method, data.train, recipe, flags)) as (run, took):
        measured = run.evaluate(data.train, test=test, seed=seed)
        record = read(run.path)
        raised = alarms(record.metrics, given=bool(weights))
        probes = [[line["step"], line["knn"]] for line in record.metrics if line.get("knn") is not None]
    return {
        "set": name,
        "network": asked.network,
        "way": way,
        "seed": seed,
        "method": method,
        "source": source(method),
        "results": {
            row["name"]: {measure: row["values"][measure]["value"] for measure in MEASURES} for row in measured["rows"]
        },
        "probes": probes,
        "alarms": [alarm.name for alarm in raised],
        "verdict": {answer.topic: answer.finding for answer in answers(record)},
        **took,
        "flags": {key: value for key, value in flags.items() if key != "weights"},
        "recipe": recipe,
        "command": f"python -m benchmarks.continued {way} --data {name} --network {asked.network}",
        "threads": torch.get_num_threads(),
    }


def table(asked: Continued, ways: tuple[str, ...]) -> str:
    """What there is, with the gain over the start as it was given, and its 95 % interval over seeds."""
    rows = [
        "| data | way | kNN % | linear % | over the start, kNN | over the start, linear | alarms |",
        "|---" * 7 + "|",
    ]
    for name in asked.data:
        there = {way: [path(asked, name, way, seed) for seed in range(asked.seeds)] for way in ways}
        found = {way: [json.loads(p.read_text()) for p in paths if p.exists()] for way, paths in there.items()}
        frozen = {
            cell["seed"]: cell["results"]["given weights"]
            for way in ways
            for cell in found[way]
            if "given weights" in cell["results"]
        }
        if frozen:
            means = " | ".join(f"{sum(one[m] for one in frozen.values()) / len(frozen):.1f}" for m in MEASURES)
            rows.append(f"| {name} | the start, frozen | {means} | | | |")
        for way, cells in found.items():
            ours = [(cell["seed"], cell["results"]["trained encoder"]) for cell in cells]
            if not ours:
                continue
            means = " | ".join(f"{sum(one[m] for _, one in ours) / len(ours):.1f}" for m in MEASURES)
            both = [(one, frozen[seed]) for seed, one in ours if seed in frozen]
            gains = [f"{over_seeds([a[m] - b[m] for a, b in both]):+.1f}" if len(both) > 1 else "" for m in MEASURES]
            names = sorted({alarm for cell in cells for alarm in cell["alarms"]})
            rows.append(f"| {name} | {way} | {means} | {' | '.join(gains)} | {', '.join(names)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main(tyro.cli(Continued, args=sys.argv[1:]))
