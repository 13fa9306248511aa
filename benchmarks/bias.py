"""Is a known bias left out of what is learned? `python -m benchmarks.bias`, on drawings whose ink has a color.

In the manner of biased-MNIST (arXiv 1910.02806): which of ten alphabets a drawing is of is the class, and in training
its ink has, in 95 of 100 drawings, the color that goes with the alphabet, else one of the nine others. Five of the 20
drawers of each alphabet are for testing: each of their drawings is seen in all ten colors. A linear classifier learns
from the features of the biased training drawings, as in the paper on FairKL (arXiv 2211.05568), and is asked for:
unbiased accuracy, over all colors; aligned and conflicting, over the drawings in their class's color and the others;
the worst of the twenty groups, class x aligned or conflicting; and that of the hundred, class x color.

--pilot: what LINES says was chosen so, on every fourth drawing of three more drawers, who are then left out of
training, in all ten colors, by unbiased accuracy, one seed. So the choice has seen drawings without bias, which a user
may not have. One result file per run, so that a stopped series goes on where it was.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor, nn

from benchmarks.bench.results import keep
from benchmarks.compare import trained
from nearfar.evaluation.groups import group_accuracy
from nearfar.evaluation.intervals import over_seeds
from nearfar.evaluation.linear import linear_scores
from nearfar.modalities.image.drawings import alphabets, drawers, drawings
from nearfar.modalities.image.samples import Images, open_images
from nearfar.modalities.image.views import plain
from nearfar.training import plan as plans
from nearfar.training import probe as probing

RESULTS = Path(__file__).parent / "results" / "bias"
RHO = 0.95
CLASSES = 10
TESTERS, PILOTS = range(15, 20), range(12, 15)
COLORS = torch.tensor([
    [255, 0, 0], [0, 255, 0], [0, 0, 255], [225, 225, 0], [225, 0, 225],
    [0, 255, 255], [255, 128, 0], [255, 0, 128], [128, 0, 255], [50, 255, 128],
])  # fmt: skip
"""Those of biased-MNIST."""
SHARED: dict[str, Any] = {
    "encoder": "conv4", "views": "drawing", "view_count": 1, "batch": 128, "epochs": 6,
    "optimizer": "adamw", "lr": 2e-3, "weight_decay": 1e-2, "probe_every": 0,
}  # fmt: skip
ALONE = {"head": "none", "temperature": 0.1}
"""No projector, as the paper's authors have it where a bias is to go; the form supcon at epsilon 0 is SupCon's loss."""
MARGIN = ALONE | {"epsilon": 0.25}
LINES: dict[str, tuple[str, dict[str, Any]]] = {
    "crossentropy": ("crossentropy", {}),
    "supcon": ("supinfonce", ALONE | {"form": "supcon", "epsilon": 0.0}),
    "epsilon-SupInfoNCE": ("supinfonce", MARGIN),
    "epsilon-SupInfoNCE + FairKL": ("supinfonce", MARGIN | {"fairkl": 1.0}),
    "epsilon-SupInfoNCE + FairKL, released": ("supinfonce", MARGIN | {"fairkl": 100.0, "penalty": "released"}),
}
CEILING = "supcon, trained without bias"
"""The same drawings with every color as likely: what the classes could give."""
LINES[CEILING] = LINES["supcon"]
MEASURES = ("accuracy", "aligned", "conflicting", "worst_class", "worst_group")


@dataclass(frozen=True)
class Bias:
    """Which lines, and how."""

    lines: tyro.conf.Positional[tuple[str, ...]] = ()
    """All that LINES names, if none is given."""
    seeds: int = 3
    """Runs of each."""
    epochs: int = 0
    """Passes over the training drawings; 0 as SHARED has it."""
    pilot: bool = False
    """Look at some drawings of three training drawers, not at those of the test, and keep nothing."""
    flags: str = "{}"
    """Settings and arguments of a pilot other than those of the line, as JSON."""
    table: bool = False
    """Run nothing, and show what there is."""


def main(asked: Bias) -> int:
    """Run what is missing, then print the table."""
    if asked.flags != "{}" and not asked.pilot:
        raise ValueError("--flags is for a --pilot: what is reported has the settings of its line")
    if unknown := [name for name in asked.lines if name not in LINES]:
        raise ValueError(f"there is no line {unknown[0]!r}; there are {', '.join(LINES)}")
    for seed in range(0 if asked.table else asked.seeds):
        for line in asked.lines or LINES:
            path = _path(line, seed, asked)
            if asked.pilot or not path.exists():
                found = one(line, seed, asked)
                print(f"{line} {asked.flags} seed {seed}: {found['results']} {found['seconds']:.0f} s", flush=True)
                if not asked.pilot:
                    keep(path, found)
    if not asked.pilot:
        print(table(asked))
    return 0


def one(line: str, seed: int, asked: Bias) -> dict[str, Any]:
    """Train once, and measure the trained and the untrained encoder."""
    method, own = LINES[line]
    rho = 1 / CLASSES if line == CEILING else RHO
    train, test = parts(seed, asked.pilot, rho)
    flags = SHARED | own | ({"epochs": asked.epochs} if asked.epochs else {}) | json.loads(asked.flags)
    with trained(plans.make(method, train, "small_images:default", flags | {"seed": seed})) as (run, took):
        results = {line: measured(run.encoder, train, test, seed)}
        if not asked.pilot and line == "supcon":
            results["untrained"] = measured(run.untrained(), train, test, seed)
    return {
        "results": results,
        "method": method,
        "seed": seed,
        "flags": flags,
        "rho": rho,
        "trained_on": len(train),
        "conflicting_in_training": int((train.label != train.attribute).sum()),
        "tested_on": len(test),
        **took,
        "protocol": {"name": "linear", "learns_from": "the biased training drawings", "epoch": "last"},
        "command": f"python -m benchmarks.bias {line!r}",
        "threads": torch.get_num_threads(),
    }


def measured(encoder: nn.Module, train: Images, test: Images, seed: int) -> dict[str, Any]:
    """Accuracies, in per cent, of a linear classifier on the features."""
    learn, rest = (probing.embed(encoder, plain(32), part) for part in (train, test))
    scores = linear_scores(learn, train.label, rest, seed=seed)[0]
    aligned = test.label == test.attribute
    found = group_accuracy(scores, test.label, test.attribute, aligned=aligned)
    found["worst_class"] = group_accuracy(scores, test.label, aligned.long())["worst_group"]
    return {name: round(found[name], 2) for name in MEASURES}


@cache
def parts(seed: int, pilot: bool, rho: float = RHO) -> tuple[Images, Images]:
    """The biased training drawings, their colors drawn with the seed, and those to test, in all colors."""
    data = drawings("train")
    names = alphabets(data)
    largest = sorted(set(names), key=lambda name: (-names.count(name), name))[:CLASSES]
    label = torch.tensor([largest.index(name) if name in largest else -1 for name in names])
    drawer = drawers(data)
    held = torch.isin(drawer, torch.tensor(PILOTS if pilot else TESTERS))
    seen = ~held & ~torch.isin(drawer, torch.tensor(TESTERS)) & (label >= 0)
    tested = (held & (label >= 0)).nonzero()[:: 4 if pilot else 1, 0].repeat_interleave(CLASSES)
    rows = seen.nonzero()[:, 0]
    every = torch.arange(len(tested)) % CLASSES
    return inked(data, rows, label, biased(label[rows], rho, seed)), inked(data, tested, label, every)


def biased(label: Tensor, rho: float, seed: int) -> Tensor:
    """A color for each: of int(rho n) of the n drawings of a class its own, of the others the rest in turn. N."""
    generator = torch.Generator().manual_seed(seed)
    color = label.clone()
    for c in range(CLASSES):
        rows = (label == c).nonzero()[:, 0]
        rest = rows[torch.randperm(len(rows), generator=generator)][int(rho * len(rows)) :]
        color[rest] = (c + 1 + torch.arange(len(rest)) % (CLASSES - 1)) % CLASSES
    return color


def inked(data: Images, rows: Tensor, label: Tensor, color: Tensor) -> Images:
    """Some of the drawings in ink of these colors on black, with their class, and the color as attribute."""
    pixels = data.pixels(rows).float() * COLORS[color][:, :, None, None] / 255  # N x 3 x S x S
    made = open_images(pixels.round().byte().permute(0, 2, 3, 1).numpy())
    made.label, made.attribute = label[rows], color
    made.classes = [str(c) for c in range(CLASSES)]
    return made


def table(asked: Bias) -> str:
    """Means over seeds with their 95 % t-intervals, and what each line gains over supcon, seed by seed."""
    found: dict[str, list[dict[str, float]]] = {}
    for line in LINES:
        paths = [_path(line, seed, asked) for seed in range(asked.seeds)]
        runs = [json.loads(path.read_text(encoding="utf-8"))["results"] for path in paths if path.exists()]
        if len(runs) == asked.seeds > 1:
            if "untrained" in runs[0]:
                found = {"untrained": [run["untrained"] for run in runs]} | found
            found[line] = [run[line] for run in runs]
    rows = [
        "| | unbiased % | aligned % | conflicting % | worst of 20 groups % | of 100 | unbiased, over supcon |",
        "|---|---|---|---|---|---|---|",
    ]
    for line, runs in found.items():
        means = [over_seeds([run[name] for run in runs]) for name in MEASURES]
        gain = ""
        if "supcon" in found and line != "supcon":
            gap = over_seeds([a["accuracy"] - b["accuracy"] for a, b in zip(runs, found["supcon"], strict=True)])
            seen = gap.low > 0 or gap.high < 0
            gain = f"{gap:+.1f}" + ("" if seen else ": no difference seen")
        cells = (f"{m:.1f}" for m in means)
        rows.append(f"| {line} | {' | '.join(cells)} | {gain} |")
    return "\n".join(rows)


def _path(line: str, seed: int, asked: Bias) -> Path:
    name = "-".join(line.replace(",", "").replace("+", "").split()).lower()
    return RESULTS / f"{name}{f'-{asked.epochs}epochs' if asked.epochs else ''}-seed{seed}.json"


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Bias, args=sys.argv[1:])))
