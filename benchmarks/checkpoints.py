"""Which checkpoint, without labels? How far scores tell it: `python -m benchmarks.checkpoints`.

Some methods, among them settings that collapse or get worse, are trained on some data without labels; of each run eight
checkpoints are kept, scored as training does it (`nearfar.training.scoring`), and measured by kNN and a linear probe.
Then, of each score:

- within: the rank correlation with accuracy over the checkpoints of a run, mean over runs, with the interval of a
  bootstrap over runs;
- across: the same over all checkpoints of all methods on one data set, runs drawn together;
- gain: the accuracy of the checkpoint that it finds best, less that of the last one; regret: what it lacks to the best
  by labels.

What `--checkpoint auto` goes by is chosen so that it can lose: for each data set on the others alone. Where the gain so
measured is not seen to be above 0, `auto` takes the last. The accuracies are on training images that are held out, as
something is chosen on them; no test split is read. One result file a run, so that a stopped series goes on where it
was; --write puts the choice into `nearfar/report/choice.json`. Accuracy on masks, where there is any, belongs into
`measured` beside the two others, under a name of its own in ACCURACIES.
"""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch import Tensor

from benchmarks.bench.plot import intervals
from benchmarks.bench.results import keep
from benchmarks.compare import COMMON, DATA, METHODS, run_metrics
from benchmarks.learn import source
from nearfar.batch import MISSING
from nearfar.errors import Diverged
from nearfar.evaluation.evaluate import evaluate_knn
from nearfar.evaluation.intervals import Interval, bootstrap
from nearfar.evaluation.linear import RIDGE_STRENGTHS, linear_fit, ridge
from nearfar.evaluation.scores import SCORES, together, worth
from nearfar.evaluation.similarity import pearson, ranks
from nearfar.files import replace_text
from nearfar.modalities.image.samples import Images, open_images
from nearfar.modalities.image.views import plain
from nearfar.report import choice
from nearfar.run import Run
from nearfar.training import job as training
from nearfar.training import plan as plans
from nearfar.training import probe as probing
from nearfar.training.saved import by_epoch

RESULTS = Path(__file__).parent / "results" / "checkpoints"
CHECKPOINTS = 8
ROWS = 500
"""Samples that are scored, as many as training takes where it can."""
SHARED = {**COMMON, "lr": 2e-3, "probe_every": 0}
FAST = {"lr": 3e-2}
"""Fifteen times the rate that suits: what diverges or collapses does so here."""
BYOL = {name: METHODS["byol"][name] for name in ("hidden", "momentum")}
LINES: dict[str, tuple[str, dict[str, Any]]] = {
    "simclr": ("simclr", {"temperature": 0.2}),
    "simclr, fast": ("simclr", {"temperature": 0.2, **FAST}),
    "simclr, cold": ("simclr", {"temperature": 0.05}),
    "moco": ("moco", {"temperature": 0.2, "queue": 4096, "momentum": 0.99}),
    "debiased": ("debiased", {"temperature": 0.5}),
    "alignuniform": ("alignuniform", {}),
    "byol": ("byol", BYOL),
    "byol, no momentum": ("byol", BYOL | {"momentum": 0.0}),
    "byol, no momentum, fast": ("byol", BYOL | {"momentum": 0.0, **FAST}),
    "barlow": ("barlow", {"dim": 512}),
    "swav": ("swav", {"prototypes": 100, "hidden": 512}),
    "rotation": ("rotation", {"all_turns": False}),
}
"""By name, the method and its flags besides SHARED."""
ACCURACIES = {"linear": "linear probe", "knn": "kNN"}
"""What checkpoints are measured by; the first decides."""
LAST, LOSS = "last", "loss"
"""To take the last checkpoint, and that of the lowest loss in training: what scores must beat."""
TITLES = {LAST: "the last", LOSS: "training loss", "clid": "CLID"} | {name: s.title for name, s in SCORES.items()}


@dataclass(frozen=True, kw_only=True)
class Data:
    """parts: training images, and held-out ones with labels.  flags: of training, besides those of a line."""

    parts: Callable[[], tuple[Images, Images]]
    flags: dict[str, Any]


@cache
def cifar10() -> tuple[Images, Images]:
    """5,000 training images, and 2,500 others of the training file."""
    images = open_images(DATA / "cifar10_train.npz")
    return images.subset(range(5_000)), images.subset(range(45_000, 47_500))


@cache
def omniglot() -> tuple[Images, Images]:
    """150 characters of Omniglot's larger set: fifteen drawings of each, and the five by other people."""
    packed = np.load(DATA / "omniglot.npz")
    character, drawer = packed["evaluation_identity"], packed["evaluation_writer"]
    images = open_images((packed["evaluation_x32"], character))
    some = character < 150
    return tuple(images.subset(np.flatnonzero(some & own).tolist()) for own in (drawer < 15, drawer >= 15))  # pyright: ignore[reportReturnType]


@cache
def groceries() -> tuple[Images, Images]:
    """Photographs of 81 groceries, of each eight, and four others of the training split."""
    with tempfile.TemporaryDirectory() as name:
        with tarfile.open(DATA / "grocery_photos.tar") as tar:
            tar.extractall(name, filter="data")
        images = open_images(str(Path(name) / "grocery_photos" / "train"), labels="folders", size=32)
        place = torch.zeros(len(images), dtype=torch.int64)
        for label in images.label.unique():
            own = (images.label == label).nonzero()[:, 0]
            place[own] = torch.arange(len(own))
        return images.subset((place < 8).nonzero()[:, 0].tolist()), images.subset((place >= 8).nonzero()[:, 0].tolist())


SETS = {
    "cifar10": Data(parts=cifar10, flags={"size": 16, "epochs": 16, "views": "simclr"}),
    "omniglot": Data(parts=omniglot, flags={"size": 24, "epochs": 16, "views": "drawing"}),
    "groceries": Data(parts=groceries, flags={"size": 32, "epochs": 40, "views": "simclr", "batch": 64}),
}
"""By name; about a minute of training on one core."""


@dataclass(frozen=True)
class Ask:
    """Which runs."""

    lines: tyro.conf.Positional[tuple[str, ...]] = ()
    """Names of LINES; all if none is given."""
    sets: tuple[str, ...] = ()
    """Names of SETS; all if none is given."""
    seed: int = 0
    """Of the runs."""
    table: bool = False
    """Run nothing, and show what there is."""
    write: bool = False
    """Write which score `--checkpoint auto` goes by into nearfar/report/choice.json."""


def main(asked: Ask) -> None:
    """Run what is missing, then print the tables and draw the plot."""
    for named, known in ((asked.lines, LINES), (asked.sets, SETS)):
        if unknown := [name for name in named if name not in known]:
            raise ValueError(f"there is no {unknown[0]!r}; there are {', '.join(known)}")
    for line in () if asked.table else asked.lines or LINES:
        for data in asked.sets or SETS:
            path = RESULTS / f"{line.replace(',', '').replace(' ', '-')}-{data}-seed{asked.seed}.json"
            if not path.exists():
                result = one(line, data, asked.seed)
                keep(path, result)
                accuracy = [round(of["linear"], 1) for of in result["checkpoints"]]
                print(f"{path.stem}: linear {accuracy}, {result['cpu_seconds']} s", flush=True)
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*-seed*.json"))]
    if results:
        found = judged(results)
        print(told(found))
        replace_text(RESULTS / "within.svg", plot(found))
        if asked.write:
            replace_text(Path(choice.__file__).with_name("choice.json"), json.dumps(chosen(found), indent=2) + "\n")


def one(line: str, data: str, seed: int) -> dict[str, Any]:
    """Train once without labels, and score and measure the checkpoints; of a run that diverged, those before."""
    method, own = LINES[line]
    train, held = SETS[data].parts()
    flags = SHARED | SETS[data].flags | own | {"seed": seed}
    flags["keep_every"] = flags["epochs"] // CHECKPOINTS
    unlabeled = replace(train, label=torch.full_like(train.label, MISSING), classes=[])
    folder, began, note = Path(tempfile.mkdtemp()), time.process_time(), ""
    every, training.scored = training.scored, lambda epochs, every, **of: ([*range(0, epochs + 1, every)], ROWS)
    try:
        try:
            plan = plans.make(method, unlabeled, "small_images:default", flags)
            if not training.train(plan, folder / "run", say=lambda text: None):
                raise KeyboardInterrupt("stopped before the end: nothing was measured")
        except Diverged as error:
            note = str(error)
        trained, lines = time.process_time() - began, run_metrics(folder / "run")
        scored, run = choice.scored(lines), Run(folder / "run")
        checkpoints = [
            {
                "epoch": epoch,
                "loss": np.mean([row["loss"] for row in lines if "loss" in row and _epoch(row) == epoch]).item(),
                "scores": {name: value for name, value in scored[epoch].items() if name in SCORES},
                **measured(Run(folder / "run", epoch).encoder, train, held),
            }
            for epoch in by_epoch(run.path, run.config)
            if epoch in scored
        ]
        untrained = measured(run.untrained(), train, held)
    finally:
        training.scored = every
        shutil.rmtree(folder)
    return {
        "line": line,
        "data": data,
        "seed": seed,
        "method": method,
        "source": source(method),
        "checkpoints": checkpoints,
        "untrained": untrained,
        "note": note,
        "cpu_seconds": round(time.process_time() - began),
        "cpu_seconds_training": round(trained),
        "flags": flags,
        "samples": {"train": len(train), "held": len(held), "scored": ROWS},
        "command": "python -m benchmarks.checkpoints",
        "threads": torch.get_num_threads(),
    }


def _epoch(line: dict[str, float]) -> int:
    """The epoch, from 1, in which a line of the journal was written."""
    return int(-(-line["epoch"] // 1))


def measured(encoder: Any, train: Images, held: Images) -> dict[str, float]:
    """Accuracies on held-out images, in per cent, of what is learned from the labels of training images."""
    known, asked = (probing.passed(encoder, plain(encoder.spec["size"]), part) for part in (train, held))
    rows = torch.arange(len(train) + len(held))
    split = [(rows[: len(train)], rows[len(train) :])]
    near = evaluate_knn(torch.cat([known, asked]), torch.cat([train.label, held.label]), split, seed=0)
    fit = linear_fit(known, train.label, solver=ridge, strengths=RIDGE_STRENGTHS)
    hits = fit.scores(asked).argmax(1).eq(held.label)
    return {"linear": 100 * float(hits.double().mean()), "knn": near["accuracy"]}


Worths = dict[str, list[float]]


def worths(checkpoints: Sequence[dict[str, Any]]) -> Worths:
    """How good each score finds each checkpoint, by name; with the baselines."""
    found = {LAST: [of["epoch"] for of in checkpoints], LOSS: [-of["loss"] for of in checkpoints]}
    # Stability has no value for the first checkpoint that is kept, which comes last by it.
    return found | worth([of["scores"] for of in checkpoints])


def judged(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What is told of each score, by data and over all; and what choosing by it on other data would have gained."""
    runs = [run for run in results if len(run["checkpoints"]) > 2]
    of = [worths(run["checkpoints"]) for run in runs]
    names = [name for name in TITLES if any(name in one for one in of)]
    sets = [name for name in SETS if any(run["data"] == name for run in runs)]
    found: dict[str, Any] = {"names": names, "sets": sets, "runs": len(runs), "failed": len(results) - len(runs)}
    for by in ACCURACIES:
        truth = [torch.tensor([c[by] for c in run["checkpoints"]], dtype=torch.float64) for run in runs]
        taken = {name: [_taken(one.get(name), y) for one, y in zip(of, truth, strict=True)] for name in names}
        last, best = [float(y[-1]) for y in truth], [float(y.max()) for y in truth]
        own: dict[str, Any] = {"within": {}, "kendall": {}, "across": {}, "gain": {}, "regret": {}}
        for name in names:
            at = {data: [i for i, run in enumerate(runs) if run["data"] == data and name in of[i]] for data in sets}
            at["all"] = [i for part in list(at.values()) for i in part]
            for data, some in at.items():
                if not some:
                    continue
                pairs = [(torch.tensor(of[i][name], dtype=torch.float64), truth[i]) for i in some]
                for which, tells in (("within", spearman), ("kendall", kendall)):
                    own[which].setdefault(name, {})[data] = bootstrap([tells(x, y) for x, y in pairs], seed=0)
                own["gain"].setdefault(name, {})[data] = bootstrap([taken[name][i] - last[i] for i in some], seed=0)
                own["regret"].setdefault(name, {})[data] = bootstrap([best[i] - taken[name][i] for i in some], seed=0)
        for data in sets:
            some = [i for i, run in enumerate(runs) if run["data"] == data]
            pooled = worths([c for i in some for c in runs[i]["checkpoints"]])
            run_of = torch.cat([torch.full((len(truth[i]),), i) for i in some])
            for name in names:
                if name in pooled:
                    x = torch.tensor(pooled[name], dtype=torch.float64)
                    own["across"].setdefault(name, {})[data] = over_runs(x, torch.cat([truth[i] for i in some]), run_of)
        own["left out"] = left_out(runs, sets, names, taken, last, best)
        found[by] = own
    return found


def left_out(
    runs: Sequence[dict[str, Any]],
    sets: Sequence[str],
    names: Sequence[str],
    taken: dict[str, list[float]],
    last: list[float],
    best: list[float],
) -> dict[str, Any]:
    """For each data set, the score that gains most on the others; and what it gains on this one, over all sets."""

    def most(some: list[int]) -> str:
        return max(names, key=lambda name: sum(taken[name][i] - last[i] for i in some))

    picks = {d: most([i for i, run in enumerate(runs) if run["data"] != d]) for d in sets if len(sets) > 1}
    if not picks:
        return {}
    own = [taken[picks[run["data"]]][i] for i, run in enumerate(runs)]
    return {
        "picks": picks,
        "all": most(list(range(len(runs)))),
        "gain": bootstrap([a - b for a, b in zip(own, last, strict=True)], seed=0),
        "regret": bootstrap([b - a for a, b in zip(own, best, strict=True)], seed=0),
        "regret_last": bootstrap([b - a for a, b in zip(last, best, strict=True)], seed=0),
    }


def _taken(worth: list[float] | None, truth: Tensor) -> float:
    """The accuracy of the checkpoint that is found best, as `report.choice` takes it: of equals the last."""
    if worth is None:
        return float(truth[-1])
    order = together({"": worth}, [""])
    return float(truth[max(zip(order, range(len(order)), strict=True))[1]])


def spearman(x: Tensor, y: Tensor) -> float:
    """Spearman's correlation; 0 where one does not vary."""
    return float(pearson(ranks(x), ranks(y)))


def kendall(x: Tensor, y: Tensor) -> float:
    """Kendall's tau-b; 0 where one does not vary."""
    a, b = ((v[:, None] > v).double() - (v[:, None] < v).double() for v in (x, y))
    spread = a.square().sum().sqrt() * b.square().sum().sqrt()
    return float((a * b).sum() / spread) if spread > 0 else 0.0


def over_runs(x: Tensor, y: Tensor, run: Tensor, draws: int = 1000) -> Interval:
    """Spearman's correlation over all checkpoints, with the interval of a bootstrap in which runs are drawn whole."""
    _, own = run.unique(return_inverse=True)
    count = int(own.max()) + 1
    drawn = torch.randint(count, (draws, count), generator=torch.Generator().manual_seed(0))
    weight = torch.zeros(draws, count, dtype=torch.float64).scatter_add_(1, drawn, torch.ones(draws, count).double())
    low, high = pearson(ranks(x), ranks(y), weight[:, own]).quantile(torch.tensor([0.025, 0.975]).double()).tolist()
    return Interval(spearman(x, y), low, high)


def told(found: dict[str, Any]) -> str:
    """The tables, in Markdown."""
    sets, parts = (
        found["sets"],
        [f"{found['runs']} runs of {CHECKPOINTS} checkpoints; {found['failed']} diverged early."],
    )
    for by, title in ACCURACIES.items():
        own = found[by]
        for which, heading, form in (
            (
                "within",
                f"Spearman's correlation with {title} accuracy over the checkpoints of a run, mean over runs",
                ".2f",
            ),
            ("kendall", "The same by Kendall's tau-b", ".2f"),
            ("across", f"Spearman's correlation with {title} accuracy over all checkpoints of a data set", ".2f"),
            ("gain", f"Points of {title} accuracy that its choice has over the last checkpoint", "+.1f"),
            ("regret", f"Points of {title} accuracy that its choice lacks to the best by labels", ".1f"),
        ):
            columns = [*sets, *(["all"] if which != "across" else [])]
            parts += ["", f"{heading}:", "", f"| score | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
            order = sorted(
                own[which], key=lambda n: -own[which][n][columns[-1]].mean if columns[-1] in own[which][n] else 9
            )
            for name in order:
                cells = [f"{own[which][name][c]:{form}}" if c in own[which][name] else "" for c in columns]
                parts.append(f"| {TITLES[name]} | {' | '.join(cells)} |")
        if out := own["left out"]:
            picks = ", ".join(f"{TITLES[name]} for {data}" for data, name in out["picks"].items())
            parts += [
                "",
                f"Chosen by {title} accuracy on the other data sets: {picks}. Gain over the last checkpoint "
                f"{out['gain']:+.1f} points; regret {out['regret']:.1f}, of the last {out['regret_last']:.1f}. "
                f"On all data sets together: {TITLES[out['all']]}.",
            ]
    return "\n".join(parts)


def chosen(found: dict[str, Any]) -> dict[str, Any]:
    """What `report.choice` reads: the score that gains most over all, if scores chosen on other data are seen to."""
    own, by = found[next(iter(ACCURACIES))], next(iter(ACCURACIES.values()))
    out = own["left out"]
    if not out:
        raise ValueError("runs on two data sets or more are needed to choose a score on some and try it on others")
    facts = {"measured": True, "scores": [], "runs": found["runs"], "checkpoints": CHECKPOINTS, "data": found["sets"]}
    facts |= {"accuracy": by, "picks": out["picks"], "gain": out["gain"]._asdict(), "regret": out["regret"].mean}
    facts |= {"regret_last": out["regret_last"].mean, "source": "python -m benchmarks.checkpoints --write"}
    if out["gain"].low > 0 and out["all"] in {*SCORES, "clid"}:
        facts |= {"scores": [out["all"]], "spearman": own["within"][out["all"]]["all"]._asdict()}
    return facts


def plot(found: dict[str, Any]) -> str:
    """Within-run correlations with the linear probe, by score and data set."""
    by, title = next(iter(ACCURACIES.items()))
    within = found[by]["within"]
    order = sorted(within, key=lambda name: -within[name]["all"].mean)
    rows = {
        TITLES[name]: {data: within[name][data] for data in found["sets"] if data in within[name]} for name in order
    }
    return intervals(f"Rank correlation with {title} accuracy over a run's checkpoints", "Spearman", rows, (-1.0, 1.0))


if __name__ == "__main__":
    main(tyro.cli(Ask, args=sys.argv[1:]))
