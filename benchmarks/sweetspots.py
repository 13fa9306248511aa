"""What some methods are for, beyond accuracy on average: `python -m benchmarks.sweetspots`, or with names of series.

- negatives: how many of the false negatives that FNC and IFND take out or in are of the query's class, and how many of
  that class they find, against taking as many at random; and kNN against the same without finding any.
- turns: whether LooC keeps what MoCo is made to forget: a linear classifier is asked, on the frozen encoder, by how
  many quarters an image was turned, which way its hue was shifted, and what it shows.
- curve: InfoMin's inverted U: SimCLR under ever stronger color jitter, by what its two views still share.
- colors: InfoMin's other views: one channel of a color space and the two others, the space as it is, or learned.
- local: LoCo, trained stage by stage, against SimCLR on the same head.

The first 10,000 training images of CIFAR-10, at 16 px, the same small encoder, optimizer and epochs for all, last
epoch; nothing is chosen on these results. One result file a run, so that a stopped series goes on where it was.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

from benchmarks.bench.plot import curve
from benchmarks.bench.results import keep
from benchmarks.claims import MOCO, SHARED, data, outdated
from benchmarks.compare import run_metrics, trained
from benchmarks.learn import source
from nearfar.distributed import normalize
from nearfar.evaluation.intervals import over_seeds
from nearfar.evaluation.knn import knn
from nearfar.evaluation.linear import linear_fit
from nearfar.files import replace_text
from nearfar.losses.pairwise import info_nce_batch
from nearfar.method import derive_seed
from nearfar.modalities.image import kind as image_kind
from nearfar.modalities.image import named
from nearfar.modalities.image.color import rotation
from nearfar.modalities.image.samples import Images
from nearfar.modalities.image.views import Views, plain
from nearfar.run import Run
from nearfar.training import plan as plans
from nearfar.training import probe as probing

RESULTS = Path(__file__).parent / "results" / "sweetspots"
UNTRAINED = "untrained"
SIZE = 16
"""Side of the views in pixels: four times as many steps in the time that the side of the images, 32, would take."""
HUES = torch.tensor([-0.1, 0.1])
"""Shifts in turns: the ends of what MoCo v2's jitter draws from."""
CANDIDATES, HELD = 512, 4096
"""Images among which a view finds its other view, which bounds the answer by their log, and test images in all."""
CHANGED = 5_000
"""Training images, and test images, that are turned or tinted."""
TEMPERATURE = 0.2
Changed = Callable[[Tensor, Tensor], Tensor]
"""(images, how each is to be changed) -> images."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A method with its flags, and its views where no setting names them."""

    method: str
    flags: dict[str, Any] = field(default_factory=dict)
    views: Callable[[int], Views] | None = None

    def viewer(self, settings: Any, size: int) -> Views:
        """What makes its views."""
        return image_kind.named_views(settings, size) if self.views is None else self.views(size)


@dataclass(frozen=True, kw_only=True)
class Series:
    """Lines that are told apart by a few numbers of their trained runs.

    columns: numbers with their headings.  compared: those whose differences are told, of pairs of lines.
    untrained: whether to measure the encoder before training too, which `measure` must then need alone.
    epochs: where none are asked for.
    """

    lines: dict[str, Line]
    measure: Callable[[Run, Line, Any], dict[str, float]]
    columns: dict[str, str]
    pairs: tuple[tuple[str, str], ...] = ()
    compared: tuple[str, ...] = ("knn",)
    untrained: bool = False
    epochs: int = 3


def neighbors(encoder: Any) -> float:
    """kNN accuracy on the test images, in per cent."""
    _, bank, test = data("cifar10")
    known, asked = (probing.embed(encoder, plain(encoder.spec["size"]), part) for part in (bank, test))
    return knn(known, bank.label, asked, test.label, k=200, temperature=0.1)["accuracy"]


def found_negatives(run: Run, line: Line, encoder: Any) -> dict[str, float]:
    """Means over the last epoch, in per cent; `random`: the recall of as many as were found, taken at random."""
    numbers = {"knn": neighbors(encoder)}
    last = [row for row in run_metrics(run.path) if row["epoch"] > run.settings.epochs - 1 and "precision" in row]
    if any(row["recall"] for row in last):
        numbers |= {name: 100 * sum(row[name] for row in last) / len(last) for name in ("precision", "recall")}
        # One in ten classes: of those taken at random a tenth is right.
        numbers["random"] = numbers["recall"] * 10 / numbers["precision"]
    return numbers


def told_apart(run: Run, line: Line, encoder: Any) -> dict[str, float]:
    """Accuracies, in per cent, of linear classifiers on the encoder: of an image's turn, of its hue, of its class."""
    _, bank, test = data("cifar10")
    parts = [part.subset(range(min(CHANGED, len(part)))) for part in (bank, test)]
    draws, found = torch.Generator().manual_seed(derive_seed(run.settings.seed, 1)), {}
    changes: dict[str, tuple[Changed, int]] = {"turn": (turned, 4), "hue": (tinted, len(HUES))}
    for name, (change, kinds) in changes.items():
        how = [torch.randint(kinds, (len(part),), generator=draws) for part in parts]
        rows = [embedded(encoder, part, change, y) for part, y in zip(parts, how, strict=True)]
        found[name] = accuracy(rows[0], how[0], rows[1], how[1])
    rows = [probing.embed(encoder, plain(encoder.spec["size"]), part) for part in parts]
    return found | {"class": accuracy(rows[0], parts[0].label, rows[1], parts[1].label)}


@torch.no_grad()
def embedded(encoder: Any, images: Images, change: Changed, how: Tensor) -> Tensor:
    """The representation of images, each of which was changed: N x dim."""
    rows = torch.arange(len(images)).split(256)
    return torch.cat(
        [encoder(change(plain(encoder.spec["size"])(*images.fetch(index))[0], how[index])) for index in rows]
    )


def turned(x: Tensor, quarters: Tensor) -> Tensor:
    """Images turned, each by its number of quarters."""
    return torch.stack([torch.rot90(x, k, (2, 3)) for k in range(4)])[quarters, torch.arange(len(x))]


def tinted(x: Tensor, which: Tensor) -> Tensor:
    """Images whose hue is shifted, each by its one of HUES."""
    return torch.einsum("nij,njhw->nihw", rotation(HUES[which]), x).clamp(0, 1)


def accuracy(learned: Tensor, label: Tensor, asked: Tensor, truth: Tensor) -> float:
    """Of a logistic regression, of one strength for all, in per cent."""
    fit = linear_fit(learned, label, strengths=(1e-3,))
    return 100 * float(fit.scores(asked).argmax(1).eq(truth).double().mean())


def shared(run: Run, line: Line, encoder: Any) -> dict[str, float]:
    """kNN, and I_NCE in nats: at least so much the two views of an image share, and at most log CANDIDATES is seen.

    Asked of test images with the networks as they are: log CANDIDATES - InfoNCE, the mean of both directions. Of a
    method with several projectors kNN alone.
    """
    _, _, test = data("cifar10")
    method: Any = run.method
    if not hasattr(method, "projector"):
        return {"knn": neighbors(encoder)}
    viewer, draws, losses = line.viewer(run.settings, encoder.spec["size"]), torch.Generator().manual_seed(0), []
    with torch.no_grad():
        for index in torch.arange(min(HELD, len(test))).split(CANDIDATES):
            views = viewer(*test.fetch(index), draws=viewer.draw(len(index), draws))[:2]
            views = method.split(*map(method.flow, views)) if getattr(method, "flow", None) else views
            q, k = (normalize(method.projector(method.encoder(view))) for view in views)
            losses += [info_nce_batch(*pair, temperature=TEMPERATURE) for pair in ((q, k), (k, q))]
    bound = math.log(CANDIDATES) - float(torch.stack(losses).mean())
    return {"shared": bound, "knn": neighbors(encoder)}


def turned_alone(size: int) -> Views:
    """Two views of LooC in the image's own colors."""
    return Views([replace(named.looc(size).views[0], jitter=0.0, gray=0.0)] * 2)


def jittered(strength: float) -> Line:
    """SimCLR under color jitter of that strength; its own is 0.5 for small images."""
    return Line(
        method="simclr", flags={"temperature": TEMPERATURE}, views=lambda size: named.simclr(size, strength=strength)
    )


FNC = {"temperature": TEMPERATURE}
IFND = MOCO | {"clusters": 250}  # 25 a class, as 25,000 are on ImageNet
LOOC = MOCO | {"views": "looc"}
SPLIT = MOCO | {"learned": True, "beta": 0.0, "grid": 1}
STRENGTHS = {f"simclr, jitter {strength:g}": jittered(strength) for strength in (0, 0.25, 0.5, 1, 2)}
SIMCLR = "simclr, jitter 0.5"
SERIES = {
    "negatives": Series(
        lines={
            "fnc, nothing found": Line(method="fnc", flags=FNC | {"top": 0}),  # SimCLR on FNC's head
            "fnc, attract": Line(method="fnc", flags=FNC),
            "fnc, eliminate": Line(method="fnc", flags=FNC | {"treatment": "eliminate"}),
            "moco": Line(method="moco", flags=MOCO),
            "ifnd, attract": Line(method="ifnd", flags=IFND | {"treatment": "attract"}),
            "ifnd, eliminate": Line(method="ifnd", flags=IFND),
        },
        measure=found_negatives,
        columns={
            "precision": "precision %",
            "recall": "recall %",
            "random": "recall of as many at random %",
            "knn": "kNN %",
        },
        pairs=(
            ("fnc, attract", "fnc, nothing found"),
            ("fnc, eliminate", "fnc, nothing found"),
            ("ifnd, attract", "moco"),
            ("ifnd, eliminate", "moco"),
        ),
    ),
    "turns": Series(
        lines={
            "moco, all": Line(method="moco", flags=LOOC | {"view_count": 2}),
            "moco, no turns": Line(method="moco", flags=MOCO | {"views": "moco_v2"}),
            "moco, no color": Line(method="moco", flags=MOCO, views=turned_alone),
            "looc": Line(method="looc", flags=LOOC | {"augmentations": 2}),
        },
        measure=told_apart,
        columns={"turn": "turn %", "hue": "hue %", "class": "class %"},
        pairs=(("moco, no turns", "moco, all"), ("moco, no color", "moco, all"), ("looc", "moco, all")),
        compared=("turn", "hue", "class"),
        untrained=True,
        epochs=10,  # after 3, MoCo is worse than the untrained network
    ),
    "curve": Series(
        lines=STRENGTHS,
        measure=shared,
        columns={"shared": "I_NCE, nats", "knn": "kNN %"},
        pairs=tuple((name, SIMCLR) for name in STRENGTHS if name != SIMCLR),
        compared=("shared", "knn"),
    ),
    "colors": Series(
        lines={
            "split": Line(method="infomin", flags=SPLIT | {"inner": 10**9}),  # the flow never moves
            "split, learned": Line(method="infomin", flags=SPLIT),
        },
        measure=shared,
        columns={"shared": "I_NCE, nats", "knn": "kNN %"},
        pairs=(("split, learned", "split"),),
        compared=("shared", "knn"),
    ),
    "local": Series(
        lines={
            SIMCLR: STRENGTHS[SIMCLR],
            "loco": Line(method="loco", flags={"temperature": TEMPERATURE}),
            "loco, no overlap": Line(method="loco", flags={"temperature": TEMPERATURE, "reach": 1}),
        },
        measure=shared,
        columns={"knn": "kNN %"},
        pairs=(("loco", SIMCLR), ("loco, no overlap", SIMCLR), ("loco", "loco, no overlap")),
    ),
}
"""Lines of one name are one run."""


@dataclass(frozen=True)
class Ask:
    """Which series, and how long."""

    series: tyro.conf.Positional[tuple[str, ...]] = ()
    """All that SERIES names, if none is given."""
    seeds: int = 3
    """Runs of each line."""
    samples: int = 10_000
    """Training images, the first of the data."""
    epochs: int = 0
    """Passes over them; 0 as the series has it."""
    table: bool = False
    """Run nothing, and show what there is."""


def main(asked: Ask) -> None:
    """Run what is missing, then print the tables."""
    if unknown := [name for name in asked.series if name not in SERIES]:
        raise ValueError(f"there is no series {unknown[0]!r}; there are {', '.join(SERIES)}")
    wanted = {name: replace(asked, epochs=asked.epochs or SERIES[name].epochs) for name in asked.series or SERIES}
    for seed in () if asked.table else range(asked.seeds):
        for name, budget in wanted.items():
            for line in SERIES[name].lines:
                path = _path(line, budget, seed)
                if not path.exists():
                    result = one(name, line, seed, budget)
                    keep(path, result)
                    print(f"{path.stem}: {result['results']}, {result['seconds']} s", flush=True)
    for name, budget in wanted.items():
        print(f"{name}\n\n{table(name, budget)}\n")
        if name == "curve" and (points := places(name, budget)):
            title = "Accuracy by what the two views share, under color jitter of growing strength"
            replace_text(RESULTS / "curve.svg", curve(title, "I_NCE, nats", "kNN %", points))


def _path(line: str, asked: Ask, seed: int) -> Path:
    return RESULTS / f"{line.replace(',', '').replace(' ', '-')}-{asked.samples}x{asked.epochs}-seed{seed}.json"


def one(name: str, line: str, seed: int, asked: Ask) -> dict[str, Any]:
    """Train once, and measure; of the first line's run also the encoder as it was before."""
    series, own = SERIES[name], SERIES[name].lines[line]
    train, bank, test = data("cifar10")
    flags = SHARED | {"probe_every": 0, "size": SIZE} | own.flags | {"epochs": asked.epochs, "seed": seed}
    # No recipe of a method's own, as rate and schedule must be the same.
    plan = plans.make(own.method, train.subset(range(asked.samples)), "small_images:default", flags)
    with _views(own), trained(plan) as (run, took):
        results = {line: series.measure(run, own, run.encoder)}
        if series.untrained and line == next(iter(series.lines)):
            results[UNTRAINED] = series.measure(run, own, run.untrained())
    return {
        "results": results,
        "method": own.method,
        "seed": seed,
        "source": source(own.method),
        **took,
        "flags": flags,
        "samples": asked.samples,
        "protocol": {"bank": len(bank), "test": len(test), "epoch": "last"},
        "command": f"python -m benchmarks.sweetspots {name}",
        "threads": torch.get_num_threads(),
    }


@contextmanager
def _views(line: Line) -> Iterator[None]:
    """Within: training makes the views of a line."""
    before = image_kind.named_views
    if line.views is not None:
        image_kind.named_views = lambda settings, size: line.views(size)
    try:
        yield
    finally:
        image_kind.named_views = before


def table(name: str, asked: Ask) -> str:
    """Means over seeds, and differences seed by seed, with 95 % t-intervals.

    none seen: no difference seen at this budget, as the interval holds 0.
    """
    series = SERIES[name]
    names = ([UNTRAINED] if series.untrained else []) + list(series.lines)
    found = {line: results for line in names if len(results := _found(name, line, asked)) > 1}
    numbers = {line: {r["seed"]: r["results"][line] for r in results} for line, results in found.items()}
    rows = [
        f"| | {' | '.join(series.columns.values())} | CPU seconds a run |",
        "|---" * (len(series.columns) + 2) + "|",
    ]
    for line, results in found.items():
        old = " (the method was changed since)" if any(map(outdated, results)) else ""
        cells = [_interval([of[c] for of in numbers[line].values() if c in of], c) for c in series.columns]
        seconds = "" if line == UNTRAINED else f"{sum(r['cpu_seconds'] for r in results) / len(results):.0f}"
        rows.append(f"| {line}{old} | {' | '.join(cells)} | {seconds} |")
    rows += ["", f"| difference | {' | '.join(series.columns[c] for c in series.compared)} |"]
    rows.append("|---" * (len(series.compared) + 1) + "|")
    for line, other in series.pairs:
        if line in found and other in found:
            ours, theirs = numbers[line], numbers[other]
            seeds = sorted(ours.keys() & theirs.keys())
            cells = [_interval([ours[s][c] - theirs[s][c] for s in seeds], c, sign="+") for c in series.compared]
            rows.append(f"| {line} - {other} | {' | '.join(cells)} |")
    return "\n".join(rows)


def places(name: str, asked: Ask) -> dict[str, tuple[float, float, float, float]]:
    """Where each line stands: what views share, kNN accuracy, and its 95 % t-interval."""
    points = {}
    for line in SERIES[name].lines:
        numbers = [r["results"][line] for r in _found(name, line, asked)]
        if len(numbers) > 1:
            share, hits = (over_seeds([of[column] for of in numbers]) for column in ("shared", "knn"))
            points[line.removeprefix("simclr, ")] = (share.mean, *hits)
    return points


def _found(name: str, line: str, asked: Ask) -> list[dict[str, Any]]:
    run = next(iter(SERIES[name].lines)) if line == UNTRAINED else line
    paths = [_path(run, asked, seed) for seed in range(asked.seeds)]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]


def _interval(values: list[float], column: str, *, sign: str = "") -> str:
    if len(values) < 2:
        return ""
    found = over_seeds(values)
    none = ", none seen" if sign and found.low <= 0 <= found.high else ""
    return f"{found:{sign}.{2 if column == 'shared' else 1}f}{none}"


if __name__ == "__main__":
    main(tyro.cli(Ask, args=sys.argv[1:]))
