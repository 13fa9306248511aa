"""Which systems find new classes beside known ones? `python -m benchmarks.openworld`, or with names of ROWS.

The first 10,000 training images of CIFAR-10. Of the first five classes each image has its label with probability
one half, drawn with the seed; of the others none has. All rows see as many images, with the same small encoder,
optimizer and views, to the last epoch; what begins with another run has half of the epochs for each. No label is held
back. Then every image without a label, which was trained on, is given a class, and this is compared with the truth,
as in arXiv 2102.03526: known classes by number, new ones, and all, by their best matching.

prototypes: OpenCon's own.  k-means: on the encoder's features of all images, brought to unit length, ten clusters,
the best of ten restarts; clusters get the numbers of the known classes that their labeled images match best.

Settings are those of the papers, or of benchmarks/compare.py; none was chosen on these results. One file a run, so that
a stopped series goes on where it was.
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

from benchmarks.bench.results import keep
from benchmarks.claims import assigned, best_of, verdict
from benchmarks.compare import COMMON, DATA, METHODS, trained
from benchmarks.learn import source
from nearfar.batch import MISSING
from nearfar.evaluation.clusters import named, open_world
from nearfar.evaluation.intervals import over_seeds
from nearfar.modalities.image.samples import Images, open_images
from nearfar.modalities.image.views import plain
from nearfar.run import Run
from nearfar.training import plan as plans
from nearfar.training import probe as probing

RESULTS = Path(__file__).parent / "results" / "openworld"
SHARED = COMMON | {"lr": 2e-3, "views": "simclr", "probe_every": 0}
CLASSES, KNOWN, RATIO = 10, 5, 0.5
SIMCLR = ("simclr", {"temperature": METHODS["simclr"]["temperature"]})
ROWS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "simclr": [SIMCLR],
    "supcon": [("supcon", {"temperature": 0.1})],
    "opencon": [("opencon", {})],
    "simclr, then opencon's last stage": [SIMCLR, ("opencon", {"train": "last"})],
}
"""What is trained, one after the other, with the flags of each."""
MEASURES = ("all", "known", "novel")


@dataclass(frozen=True)
class OpenWorld:
    """Which rows, and how long."""

    rows: tyro.conf.Positional[tuple[str, ...]] = ()
    """All that ROWS names, if none is given."""
    seeds: int = 3
    """Runs of each."""
    samples: int = 10_000
    """Training images, the first of the file."""
    epochs: int = 4
    """Passes over them, in all."""
    table: bool = False
    """Run nothing, and show what there is."""


def main(asked: OpenWorld) -> None:
    """Run what is missing, then print the tables."""
    rows = asked.rows or tuple(ROWS)
    if unknown := [row for row in rows if row not in ROWS]:
        raise ValueError(f"there is no row {unknown[0]!r}; there are {', '.join(ROWS)}")
    for seed in range(asked.seeds if not asked.table else 0):
        for row in rows:
            ensure(row, seed, asked)
    print(table(rows, asked))


def path(row: str, seed: int, asked: OpenWorld) -> Path:
    """Where the result of a run is kept."""
    slug = row.replace(", then ", "-").replace("'s ", "-").replace(" ", "-")
    return RESULTS / f"{slug}-{asked.samples}x{asked.epochs}-seed{seed}.json"


def ensure(row: str, seed: int, asked: OpenWorld) -> None:
    """Train and measure, unless that was done."""
    where = path(row, seed, asked)
    if not where.exists():
        everything = open_images(DATA / "cifar10_train.npz").subset(range(asked.samples))
        result = one(row, seed, asked.epochs, everything)
        command = f"python -m benchmarks.openworld {row!r} --samples {asked.samples} --epochs {asked.epochs}"
        keep(where, result | {"command": command, "threads": torch.get_num_threads()})
        said = {readout: [round(found[name], 1) for name in MEASURES] for readout, found in result["results"].items()}
        print(f"{where.stem}: {said}, {result['cpu_seconds']} s", flush=True)


def one(row: str, seed: int, epochs: int, everything: Images) -> dict[str, Any]:
    """A run of a row, measured."""
    data, took, flags = with_few_labels(everything, seed), [], []
    with ExitStack() as stack:
        run = None
        for method, own in ROWS[row]:
            share = epochs // len(ROWS[row])
            given = SHARED | own | {"epochs": share, "seed": seed}
            if method == "opencon":
                given |= {"novel": CLASSES - KNOWN, "rise": share // 2}  # half of training, as in the paper
            start = {} if run is None else {"from_run": str(run.path)}
            plan = plans.make(method, data, "small_images:default", given | start)
            run, seconds = stack.enter_context(trained(plan))
            took.append(seconds)
            flags.append({"method": method} | given)
        assert run is not None
        results = measured(run, data, everything.label)
    return {
        "row": row,
        "sources": {method: source(method) for method, _ in ROWS[row]},
        "seed": seed,
        "epochs": epochs,
        "results": results,
        "seconds": round(sum(t["seconds"] for t in took), 1),
        "cpu_seconds": round(sum(t["cpu_seconds"] for t in took), 1),
        "last_loss": took[-1]["last_loss"],
        "flags": flags,
        "samples": len(data),
        "labeled": int((data.label != MISSING).sum()),
    }


def with_few_labels(everything: Images, seed: int) -> Images:
    """The images with half of the labels of the first classes, and no other; only these classes have names."""
    drawn = torch.rand(len(everything), generator=torch.Generator().manual_seed(seed)) < RATIO
    label = torch.where(drawn & (everything.label < KNOWN), everything.label, MISSING)
    return replace(everything, label=label, classes=everything.classes[:KNOWN])


def measured(run: Run, data: Images, truth: Tensor) -> dict[str, Any]:
    """What is right of the classes given to images that had no label, by each way to give them."""
    found = named(best_of(probing.embed(run.encoder, plain(32), data), CLASSES), data.label, KNOWN)
    given = {"k-means": found}
    if hasattr(run.method, "assign"):
        given["prototypes"] = assigned(run.method, data)
    rest = data.label == MISSING
    return {readout: open_world(found[rest], truth[rest], KNOWN) for readout, found in given.items()}


def table(rows: tuple[str, ...], asked: OpenWorld) -> str:
    """The results of all seeds as Markdown tables: the numbers, and what OpenCon gains over k-means of others."""
    done: dict[tuple[str, str], list[dict[str, Any]]] = {}
    lines = ["| trained | read by | all % | known % | new % | CPU seconds a run |", "|---|---|---|---|---|---|"]
    for row in rows:
        there = [path(row, seed, asked) for seed in range(asked.seeds) if path(row, seed, asked).exists()]
        found = [json.loads(where.read_text(encoding="utf-8")) for where in there]
        if len(found) < max(asked.seeds, 2):
            lines.append(f"| {row} | | | | | {len(found)} of {max(asked.seeds, 2)} runs |")
            continue
        old = any(result["sources"] != {name: source(name) for name in result["sources"]} for result in found)
        seconds = sum(result["cpu_seconds"] for result in found) / len(found)
        for readout in found[0]["results"]:
            done[row, readout] = [result["results"][readout] for result in found]
            numbers = [over_seeds([result[name] for result in done[row, readout]]) for name in MEASURES]
            cells = " | ".join(f"{x:.1f}" for x in numbers)
            lines.append(f"| {row}{' (changed since)' if old else ''} | {readout} | {cells} | {seconds:.0f} |")
    lines += ["", "| gain of | read by | over k-means of | all | known | new |", "|---|---|---|---|---|---|"]
    for row, readout in done:
        for other in ("simclr", "supcon"):
            if "opencon" in row and (other, "k-means") in done:
                pairs = list(zip(done[row, readout], done[other, "k-means"], strict=True))
                gaps = [over_seeds([a[name] - b[name] for a, b in pairs]) for name in MEASURES]
                cells = " | ".join(f"{gap:+.1f}, {verdict(gap.low, gap.high)}" for gap in gaps)
                lines.append(f"| {row} | {readout} | {other} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(tyro.cli(OpenWorld, args=sys.argv[1:]))
