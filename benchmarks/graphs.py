"""GraphCL and SupCon on graphs: `python -m benchmarks.graphs DATA`, where DATA hold MUTAG, PROTEINS, NCI1, IMDB-BINARY.

Each is measured by a support vector machine in the ten folds that the data bring, after the last epoch: graphcl,
trained on all graphs without labels, as its paper does; supcon, trained for each fold anew on the labels of the other
nine; the untrained encoder; and counts of node labels and of neighborhoods. What was measured is kept, a file a piece.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

from benchmarks.bench.results import keep
from nearfar.data.splits import given_folds
from nearfar.evaluation.evaluate import evaluate
from nearfar.evaluation.linear import RIDGE_STRENGTHS, ridge
from nearfar.modalities.graph import counts
from nearfar.modalities.graph.samples import GraphSamples, open_graphs
from nearfar.modalities.graph.views import PLAIN
from nearfar.run import fit
from nearfar.training import probe as probing

RESULTS = Path(__file__).parent / "results" / "graphs"
SETS = ("MUTAG", "IMDB-BINARY", "PROTEINS", "NCI1")
EPOCHS = {"graphcl": 20, "supcon": 20}
FEWER = {("NCI1", "supcon"): 5}
"""Epochs of a set of four thousand graphs that is trained on ten times for each seed."""


@dataclass(frozen=True)
class Graphs:
    """Where the data are, and how much of it."""

    data: tyro.conf.Positional[Path]
    """An .npz file or a folder with the sets."""
    sets: tuple[str, ...] = SETS
    rows: tuple[str, ...] = ("counts", "untrained", "graphcl", "supcon")
    seeds: int = 3
    show: bool = False
    """Only the table of what was measured."""


def main(asked: Graphs) -> int:
    for name in asked.sets if not asked.show else ():
        samples = open_graphs(asked.data, dataset=name)
        for row in asked.rows:
            for seed in range(1 if row == "counts" else asked.seeds):
                path = RESULTS / f"{name}-{row}-{seed}.json"
                if not path.exists():
                    keep(path, measured(samples, name, row, seed))
                    print(path.name, flush=True)
    print(table())
    return 0


def measured(samples: GraphSamples, name: str, row: str, seed: int) -> dict[str, Any]:
    """Accuracies of a row of the table, by classifier."""
    result: dict[str, Any] = {"set": name, "row": row, "seed": seed, "graphs": len(samples), "epochs": 0}
    splits = given_folds(samples.label, samples.group, samples.fold)
    if row == "counts":
        made = counts.counted(samples.fetch(torch.arange(len(samples)))[0])
        return result | {"accuracy": {title: judged(x, samples, splits) for title, x in made.items()}}
    if row == "untrained":
        return result | {"accuracy": judged(trained(samples, "graphcl", seed, 0), samples, splits)}
    result["epochs"] = epochs = FEWER.get((name, row), EPOCHS[row])
    if row == "graphcl":
        return result | {"accuracy": judged(trained(samples, row, seed, epochs), samples, splits)}
    answers: dict[str, list[tuple[float, int]]] = {}
    for learn, test in splits:
        part = samples.subset(learn)
        features = trained(samples, row, seed, epochs, part)
        for title, value in judged(features, samples, [(learn, test)]).items():
            answers.setdefault(title, []).append((value, len(test)))
    total = sum(len(test) for _, test in splits)
    return result | {"accuracy": {t: round(sum(v * n for v, n in own) / total, 2) for t, own in answers.items()}}


def trained(samples: GraphSamples, method: str, seed: int, epochs: int, part: GraphSamples | None = None) -> Tensor:
    """Rows of all samples by an encoder that was trained on a part of them, by default on all without labels."""
    folder = Path(tempfile.mkdtemp())
    given = part if part is not None else samples.without_labels()
    try:
        run = fit(
            given, method, out=folder / "run", seed=seed, epochs=max(1, epochs), probe_every=0, say=lambda text: None
        )
        return probing.embed(run.encoder if epochs else run.untrained(), PLAIN, samples)
    finally:
        shutil.rmtree(folder)


def judged(x: Tensor, samples: GraphSamples, splits: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Accuracy over all folds, in per cent, of the support vector machine and of a linear classifier."""
    made = evaluate(
        x,
        samples.label,
        splits,
        seen_in_training=True,
        solver=ridge,
        strengths=RIDGE_STRENGTHS,
        ks=(5,),
        svm=True,
    )
    return {title: round(made[title]["accuracy"], 2) for title in ("svm", "linear")}


def table() -> str:
    """Mean and deviation over seeds of what was measured, as Markdown."""
    known = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    lines = [f"| row | {' | '.join(SETS)} |", "|---|" + "---|" * len(SETS)]
    for title, own in _rows(known):
        cells = []
        for name in SETS:
            values = [one for one in own if one[0] == name]
            cells.append(
                ", ".join(_shown([value[k] for _, value in values]) for k in ("svm", "linear")) if values else ""
            )
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _rows(known: list[dict[str, Any]]) -> Iterator[tuple[str, list[tuple[str, dict[str, float]]]]]:
    for title in ("node counts", "WL counts"):
        yield title, [(one["set"], one["accuracy"][title]) for one in known if one["row"] == "counts"]
    for row in ("untrained", "graphcl", "supcon"):
        yield row, [(one["set"], one["accuracy"]) for one in known if one["row"] == row]


def _shown(values: list[float]) -> str:
    rows = torch.tensor(values, dtype=torch.float64)
    return f"{float(rows.mean()):.1f}" + (f" ± {float(rows.std()):.1f}" if len(rows) > 1 else "")


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Graphs, description=__doc__)))
