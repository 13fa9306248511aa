"""Do 1 % of the labels go further on a pre-trained encoder? `python -m benchmarks.adult`, on the census table adult.

Each method learns from the 26,048 training rows without their labels (supcon with the 1 %), then a logistic regression
on 1 % of the labels (260 rows, drawn with the seed, the same for all) tells income on the 6,513 test rows; its strength
is chosen inside the 260. Beside it: the same network untrained, and, on the raw columns, the same regression and
gradient boosting, scikit-learn's with its defaults. `--pilot` tests on a held-out tenth of the training rows instead:
what recipes/tables.py says was chosen there.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import Tensor

from benchmarks.bench.results import keep
from nearfar.batch import MISSING
from nearfar.evaluation.intervals import over_seeds
from nearfar.evaluation.linear import linear, logistic
from nearfar.evaluation.protocol import scored
from nearfar.modalities import kind as kinds
from nearfar.modalities.table.samples import TableSamples, open_table
from nearfar.run import load
from nearfar.training import job as training
from nearfar.training import plan as plans
from nearfar.training import probe as probing

RESULTS = Path(__file__).parent / "results" / "adult"
DATA = Path(os.environ.get("NEARFAR_DATA", "../shared/data")) / "adult.csv.gz"
METHODS = ("simclr", "moco", "byol", "barlow", "supcon")
SHARE = 0.01


@dataclass(frozen=True)
class Adult:
    """Which methods, and how."""

    methods: tyro.conf.Positional[tuple[str, ...]] = METHODS
    seeds: int = 3
    pilot: bool = False
    """Look at a held-out tenth of the training rows, not at the test rows, and keep nothing."""
    flags: str = "{}"
    """Settings and arguments of a pilot other than the recipe's, as JSON."""


def main(asked: Adult) -> int:
    if asked.flags != "{}" and not asked.pilot:
        raise ValueError("--flags is for a --pilot: what is reported has the recipe's settings")
    table = open_table(DATA, label_column="income")
    rows: dict[str, list[dict[str, float]]] = {}
    for seed in range(asked.seeds):
        train, test = _parts(table, seed if asked.pilot else None)
        few = _few(train, seed)
        for method in asked.methods:
            path = RESULTS / f"{method}-seed{seed}.json"
            if asked.pilot or not path.exists():
                found = measured(method, train, test, few, seed, json.loads(asked.flags))
                if not asked.pilot:
                    keep(path, found)
            else:
                found = json.loads(path.read_text(encoding="utf-8"))
            for name, numbers in found["results"].items():
                if name in ("untrained", "raw columns", "gradient boosting") and method != asked.methods[0]:
                    continue
                rows.setdefault(name, []).append(numbers)
            print(f"{method} seed {seed}: {found['results'][method]}", flush=True)
    print(f"\n{'':<18}{'accuracy':<26}mean over classes")
    for name, runs in rows.items():
        means = (over_seeds([run[key] for run in runs]) for key in ("accuracy", "class_accuracy"))
        print(f"{name:<18}" + "".join(f"{m:.1f}".ljust(26) for m in means))
    for method in asked.methods:
        for other in ("untrained", "raw columns"):
            gain = over_seeds([a["accuracy"] - b["accuracy"] for a, b in zip(rows[method], rows[other], strict=True)])
            seen = "" if gain.low > 0 or gain.high < 0 else ": no difference seen"
            print(f"{method} over {other}: {gain:+.1f}{seen}")
    return 0


def measured(
    method: str, train: TableSamples, test: TableSamples, few: Tensor, seed: int, flags: dict[str, Any]
) -> dict[str, Any]:
    """Train one method, and measure it and what it is held against."""
    known = torch.full_like(train.label, MISSING)
    if method == "supcon":
        known[few] = train.label[few]
    seen = replace(train, label=known, group=torch.full_like(train.group, MISSING))
    results = {}
    with tempfile.TemporaryDirectory() as name:
        plan = plans.make(method, seen, "tables", {"seed": seed, "probe_every": 1000} | flags)
        if not training.train(plan, Path(name) / "run", say=lambda text: None):
            raise KeyboardInterrupt("stopped before the end: nothing was measured")
        run = load(Path(name) / "run")
        encoder, untrained = run.encoder, run.untrained()
        seconds = json.loads((run.path / "environment.json").read_text(encoding="utf-8"))["seconds"]
    kind = kinds.of("table")
    plain = kind.plain(encoder)
    raw = [kind.raw(part, torch.arange(len(part)), encoder) for part in (train, test)]
    features = {
        method: [probing.embed(encoder, plain, part) for part in (train, test)],
        "untrained": [probing.embed(untrained, plain, part) for part in (train, test)],
        "raw columns": raw,
    }
    for what, (learn, rest) in features.items():
        found = linear(learn[few], train.label[few], rest, test.label, solver=logistic, seed=seed)
        results[what] = {key: found[key] for key in ("accuracy", "class_accuracy")}
    trees = HistGradientBoostingClassifier(random_state=seed).fit(raw[0][few].numpy(), train.label[few].numpy())
    found = scored(torch.from_numpy(trees.predict_proba(raw[1].numpy())), test.label)
    results["gradient boosting"] = {key: found[key] for key in ("accuracy", "class_accuracy")}
    return {
        "results": {what: {k: round(v, 2) for k, v in numbers.items()} for what, numbers in results.items()},
        "labels": len(few),
        "tested": len(test),
        "seconds": round(seconds, 1),
        "seed": seed,
        "settings": run.config["settings"],
        "arguments": run.config["arguments"],
        "command": f"python -m benchmarks.adult {method}",
    }


def _parts(table: TableSamples, pilot: int | None) -> tuple[TableSamples, TableSamples]:
    """The rows to learn from and those to test: the test part, or for a pilot a tenth of the training part."""
    train = table.of_split("train").nonzero()[:, 0].tolist()
    if pilot is None:
        return table.subset(train), table.subset(table.of_split("test").nonzero()[:, 0])
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(1000 + pilot)).tolist()
    held = {train[i] for i in order[: len(train) // 10]}
    return table.subset([i for i in train if i not in held]), table.subset(sorted(held))


def _few(train: TableSamples, seed: int) -> Tensor:
    """1 % of the rows, class by class in their proportions."""
    generator = torch.Generator().manual_seed(seed)
    picked = []
    for c in range(len(train.classes)):
        rows = (train.label == c).nonzero()[:, 0]
        picked.append(rows[torch.randperm(len(rows), generator=generator)[: round(SHARE * len(rows))]])
    return torch.cat(picked).sort().values


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Adult, args=sys.argv[1:])))
