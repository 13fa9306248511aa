"""Which methods serve rare classes? `python -m benchmarks.longtail`, or with names of METHODS: on CIFAR-10, uneven.

12,406 training images, from 5,000 of the first class to 50 of the last, drawn with the seed; the official test part,
which is balanced. All methods with the same small encoder, optimizer, views and samples seen, last epoch, no label held
back. Two measures of each:

probe: a linear classifier on the frozen encoder's features of the plain training images, repeated until classes are
even: what class-balanced sampling is in the mean, so this is classifier re-training (cRT, Kang et al. 2019, arXiv
1910.09217) as a logistic regression, whose strength is chosen on a held-out fifth of the training images.
own: the method's own classifier, where it has one, without the classes' shares.

With the usual bounds of 100 and 20 no class would be rare, so that here more than 1,000 are many, less than 200 few.
Settings are those of the papers for CIFAR with a long tail, but for optimizer and views, which are the same for all,
and the momentum of slow copies, faster as the training is short; none was chosen on these results. One file a run, so
that a stopped series goes on where it was.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor, nn

from benchmarks.bench.results import keep
from benchmarks.claims import verdict
from benchmarks.compare import COMMON, DATA, trained
from benchmarks.learn import source
from nearfar.data.splits import as_many_of_each, long_tail
from nearfar.evaluation.intervals import over_seeds
from nearfar.evaluation.linear import linear_scores
from nearfar.evaluation.longtail import long_tail as accuracies
from nearfar.method import Method
from nearfar.modalities.image.samples import Images, open_images
from nearfar.modalities.image.views import plain
from nearfar.run import Run
from nearfar.training import plan as plans
from nearfar.training import probe as probing

RESULTS = Path(__file__).parent / "results" / "longtail"
FACTOR, MANY, FEW = 100, 1000, 200
STRENGTHS = (1.0, 1e-1, 1e-2, 1e-3)
SHARED = COMMON | {"lr": 2e-3, "views": "supcon", "probe_every": 0}
PACO = {"dim": 32, "queue": 1024, "temperature": 0.05, "alpha": 0.01}
METHODS: dict[str, dict[str, Any]] = {
    "crossentropy": {},
    "crossentropy prior": {"prior": True},
    "supcon": {"temperature": 0.1},
    "kcl": {"temperature": 0.1, "queue": 4096, "momentum": 0.99},
    "rescom": {"dim": 32, "negatives": 36},  # the released share of the queue
    "paco": PACO | {"momentum": 0.99, "splits": 1},
    "gpaco": PACO,
}
"""Names of rows, whose first word is the method, and its flags."""
AGAINST = "crossentropy prior"
GROUPS = ("all", "many", "medium", "few")


@dataclass(frozen=True)
class LongTail:
    """Which rows, and how long."""

    rows: tyro.conf.Positional[tuple[str, ...]] = ()
    """All that METHODS names, if none is given."""
    seeds: int = 3
    """Runs of each."""
    epochs: int = 3
    """Passes over the training images."""
    table: bool = False
    """Run nothing, and show what there is."""


def main(asked: LongTail) -> None:
    """Run what is missing, then print the table."""
    rows = asked.rows or tuple(METHODS)
    if unknown := [row for row in rows if row not in METHODS]:
        raise ValueError(f"there is no row {unknown[0]!r}; there are {', '.join(METHODS)}")
    for seed in range(asked.seeds if not asked.table else 0):
        for row in rows:
            ensure(row, seed, asked.epochs)
    print(table(rows, asked.seeds, asked.epochs))


def path(row: str, seed: int, epochs: int) -> Path:
    """Where the result of a run is kept."""
    return RESULTS / f"{row.replace(' ', '-')}-x{epochs}-seed{seed}.json"


def ensure(row: str, seed: int, epochs: int) -> None:
    """Train and measure, unless that was done."""
    where = path(row, seed, epochs)
    if not where.exists():
        everything, test = open_images(DATA / "cifar10_train.npz"), open_images(DATA / "cifar10_test.npz")
        train = everything.subset(long_tail(everything.label, factor=FACTOR, seed=seed).tolist())
        result = one(row, seed, epochs, train, test)
        keep(where, result)
        said = {name: round(found["all"], 1) for name, found in result["results"].items()}
        print(f"{where.stem}: {said}, {result['cpu_seconds']} s", flush=True)


def one(row: str, seed: int, epochs: int, train: Images, test: Images) -> dict[str, Any]:
    """A run, measured both ways."""
    method, flags = row.split()[0], SHARED | METHODS[row] | {"epochs": epochs, "seed": seed}
    with trained(plans.make(method, train, "small_images:default", flags)) as (run, took):
        results = measured(run, train, test, seed)
    return {
        "row": row,
        "method": method,
        "source": source(method),
        "seed": seed,
        "epochs": epochs,
        "results": results,
        **took,
        "flags": flags,
        "samples": len(train),
        "factor": FACTOR,
        "command": f"python -m benchmarks.longtail {row!r} --epochs {epochs}",
        "threads": torch.get_num_threads(),
    }


def measured(run: Run, train: Images, test: Images, seed: int) -> dict[str, Any]:
    """The accuracies of a re-trained classifier, and of the method's own if it has one."""
    known, asked = (probing.embed(run.encoder, plain(32), part) for part in (train, test))
    scores, config = probe(known, train.label, asked, seed)
    counts = torch.bincount(train.label).tolist()
    found = {"probe": accuracies(scores.argmax(1), test.label, counts, many=MANY, few=FEW)}
    found["probe"]["protocol"] |= {"strength": config["strength"], "held_out_accuracy": config["held_out_accuracy"]}
    if run.method.classifies:
        scores = probing.embed(Own(run.method), plain(32), test)
        found["own"] = accuracies(scores.argmax(1), test.label, counts, many=MANY, few=FEW)
    return found


def probe(known: Tensor, label: Tensor, asked: Tensor, seed: int) -> tuple[Tensor, dict[str, Any]]:
    """The scores of a class-balanced linear classifier, M x C, and what was chosen."""
    rows = as_many_of_each(label, seed=seed)
    # An image's repetitions go together, so that none is both learned from and held out.
    scores, config, _ = linear_scores(known[rows], label[rows], asked, group=rows, strengths=STRENGTHS, seed=seed)
    return scores, config


class Own(nn.Module):
    """A method's classifier, as what makes a row of logits of a view."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, view: Tensor) -> Tensor:
        return self.method.classify(view)


def table(rows: tuple[str, ...], seeds: int, epochs: int) -> str:
    """The results as a Markdown table: means over seeds, and differences seed by seed with 95 % t-intervals."""
    lines = [
        f"| method | classifier | all | many | medium | few | all, against {AGAINST} | | CPU seconds a run |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    base = results(AGAINST, seeds, epochs)
    for row in rows:
        found = results(row, seeds, epochs)
        for kind in ("probe", "own"):
            if len(found) < max(2, seeds):
                lines += [f"| {row} | | {len(found)} of {max(2, seeds)} runs | | | | | | |"] if kind == "probe" else []
                continue
            if kind not in found[0]["results"]:
                continue
            values = {group: [result["results"][kind][group] for result in found] for group in GROUPS}
            means = " | ".join(f"{sum(v) / len(v):.1f}" if None not in v else "n/a" for v in values.values())
            gap = " | "
            if row != AGAINST and len(base) == len(found):
                pairs = zip(values["all"], (result["results"][kind]["all"] for result in base), strict=True)
                held = over_seeds([a - b for a, b in pairs])
                gap = f"{held:+.1f} | {verdict(held.low, held.high)}"
            old = "; the method was changed since" if any(r["source"] != source(r["method"]) for r in found) else ""
            seconds = sum(result["cpu_seconds"] for result in found) / len(found)
            lines.append(f"| {row} | {kind} | {means} | {gap}{old} | {seconds:.0f} |")
    return "\n".join(lines)


def results(row: str, seeds: int, epochs: int) -> list[dict[str, Any]]:
    """The results there are of a row's runs."""
    paths = (path(row, seed, epochs) for seed in range(seeds))
    return [json.loads(where.read_text(encoding="utf-8")) for where in paths if where.exists()]


if __name__ == "__main__":
    main(tyro.cli(LongTail, args=sys.argv[1:]))
