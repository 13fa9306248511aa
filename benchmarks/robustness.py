"""How much of an encoder's accuracy survives attacks and corruptions? `python -m benchmarks.robustness`.

Each method learns from the first 10,000 training images of CIFAR-10 with the same small encoder, optimizer and number
of samples seen (supcon and excon with their labels). A logistic regression of one strength for all is fitted on clean
features of those images. Then the whole, from pixels to logits, is asked for the test images: as they are, under
FGSM and PGD, and spoilt in six ways; and how far its confidence misses its accuracy, before and after a temperature
that is fitted on 2,000 other training images. Nothing is chosen on these results. One result file a run, so that a
stopped series goes on where it was.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor, nn

from benchmarks.bench.results import keep
from benchmarks.compare import COMMON, DATA, METHODS, trained
from benchmarks.learn import source
from nearfar import methods
from nearfar.evaluation.calibration import calibration_error, fit_temperature
from nearfar.evaluation.corruptions import SEVERITIES, corrupt
from nearfar.evaluation.intervals import over_seeds
from nearfar.evaluation.linear import linear_fit
from nearfar.evaluation.robustness import Attack, accuracy_under, fgsm, pgd
from nearfar.modalities.image.samples import Images, open_images
from nearfar.modalities.image.views import plain
from nearfar.ops.attacks import Norm
from nearfar.training import plan as plans
from nearfar.training import probe as probing

RESULTS = Path(__file__).parent / "results" / "robustness"
UNTRAINED = "untrained"
STRENGTH = 1e-3
"""Of the logistic regression."""
HELD, ATTACKED, SPOILT = 2_000, 1_000, 500
"""Training images for the temperature, which nothing learns from, and test images that are attacked, and spoilt."""
PIXEL = 1 / 255
"""A level of 255, which most radii are counted in."""


@dataclass(frozen=True)
class Entry:
    """A method with its flags."""

    method: str
    flags: dict[str, Any]


_SHARED = COMMON | {"lr": 2e-3, "views": "simclr", "temperature": 0.5}
ENTRIES = {
    "simclr": Entry("simclr", _SHARED),
    "robust": Entry("robust", _SHARED | {"rho": 0.1}),
    "robust, oracle": Entry("robust", _SHARED | {"oracle": True}),
    "robust, attacked": Entry("robust", _SHARED | {"rho": 0.1, "adversarial": True, "eps": 4 * PIXEL, "steps": 3}),
    "attacked alone": Entry("robust", _SHARED | {"rho": 0.0, "adversarial": True, "eps": 4 * PIXEL, "steps": 3}),
    "clae": Entry("clae", _SHARED),
    "supcon": Entry("supcon", COMMON | METHODS["supcon"]),
    "excon": Entry("excon", COMMON | METHODS["supcon"] | {"views": "excon"}),
}
AGAINST = (
    ("supcon", "simclr"),
    ("robust", "simclr"),
    ("robust, oracle", "simclr"),
    ("robust, attacked", "simclr"),
    ("attacked alone", "simclr"),
    ("robust, attacked", "attacked alone"),
    ("clae", "simclr"),
    ("excon", "supcon"),
)
COLUMNS = {
    "clean": "clean",
    "fgsm 1": "FGSM 1/255",
    "pgd 2": "PGD 2/255",
    "pgd l2": "PGD l2 0.25",
    "spoilt": "corrupted",
    "ece": "ECE",
    "ece, temperature": "ECE, temperature fitted",
}


@dataclass(frozen=True)
class Robustness:
    """Which methods, and how long."""

    methods: tyro.conf.Positional[tuple[str, ...]] = ()
    """All that ENTRIES names and the library has, if none is given."""
    seeds: int = 3
    """Runs of each method."""
    samples: int = 10_000
    """Training images, the first of the data."""
    epochs: int = 3
    """Passes over them."""
    table: bool = False
    """Run nothing, and show what there is."""


def main(asked: Robustness) -> None:
    """Run what is missing, then print the tables."""
    if unknown := [name for name in asked.methods if name not in ENTRIES]:
        raise ValueError(f"there is no {unknown[0]!r} here; there are {', '.join(ENTRIES)}")
    names = asked.methods or tuple(name for name, entry in ENTRIES.items() if entry.method in methods.names())
    for seed in () if asked.table else range(asked.seeds):
        for name in names:
            path = _path(name, asked, seed)
            if not path.exists():
                result = one(name, seed, asked)
                keep(path, result)
                print(f"{path.stem}: {_row(result['results'][name])}, {result['seconds']} s", flush=True)
    print(table(asked))


def _path(name: str, asked: Robustness, seed: int) -> Path:
    return RESULTS / f"{name.replace(', ', '-')}-{asked.samples}x{asked.epochs}-seed{seed}.json"


def one(name: str, seed: int, asked: Robustness) -> dict[str, Any]:
    """Train once, and measure; of simclr's run also the encoder as it was before."""
    entry = ENTRIES[name]
    train, test = data()
    flags = entry.flags | {"epochs": asked.epochs, "seed": seed}
    known = train.subset(range(asked.samples))
    held = train.subset(range(len(train) - HELD, len(train)))
    # No recipe of a method's own, as rate and schedule must be the same.
    plan = plans.make(entry.method, known, "small_images:default", flags)
    with trained(plan) as (run, took):
        results = {name: measured(run.encoder, known, held, test)}
        if name == "simclr":
            results[UNTRAINED] = measured(run.untrained(), known, held, test)
    return {
        "results": results,
        "method": entry.method,
        "seed": seed,
        "source": source(entry.method),
        **took,
        "flags": {flag: value for flag, value in flags.items() if flag != "probe_every"},
        "samples": asked.samples,
        "protocol": {
            "classifier": f"logistic regression, strength {STRENGTH:g}",
            "fitted on": len(known),
            "temperature fitted on": len(held),
            "test": len(test),
            "attacked": min(ATTACKED, len(test)),
            "spoilt": min(SPOILT, len(test)),
            "pgd": "10 steps of a quarter of the radius, random start",
            "epoch": "last",
        },
        "command": f"python -m benchmarks.robustness {json.dumps(name)}",
        "threads": torch.get_num_threads(),
    }


@cache
def data() -> tuple[Images, Images]:
    """What is learned from, and the test part."""
    return open_images(DATA / "cifar10_train.npz"), open_images(DATA / "cifar10_test.npz")


def attacks() -> dict[str, Attack]:
    """By name; the numbers are radii in levels of 255."""
    found: dict[str, Attack] = {f"fgsm {r}": partial(fgsm, epsilon=r * PIXEL) for r in (1, 2, 4, 8)}
    balls: tuple[tuple[str, float, Norm], ...] = (
        ("pgd 2", 2 * PIXEL, "linf"), ("pgd l2", 0.25, "l2")
    )  # fmt: skip
    for name, radius, norm in balls:
        start = torch.Generator().manual_seed(0)
        found[name] = partial(pgd, epsilon=radius, steps=10, norm=norm, generator=start)
    return found


def measured(encoder: nn.Module, known: Images, held: Images, test: Images) -> dict[str, Any]:
    """All numbers of one encoder in eval mode, in per cent, but for the temperature."""
    fit = linear_fit(probing.embed(encoder, plain(32), known), known.label, strengths=(STRENGTH,))

    def model(x: Tensor) -> Tensor:
        return fit.scores(encoder(x))

    logits, before = (fit.scores(probing.embed(encoder, plain(32), part)) for part in (test, held))
    temperature = fit_temperature(before, held.label)
    (x,) = plain(32)(*test.fetch(torch.arange(min(ATTACKED, len(test)))))
    label, first = test.label[: len(x)], slice(0, SPOILT)
    spoilt = {
        name: [accuracy_under(None, model, corrupt(x[first], name, s), label[first]) for s in range(1, 6)]
        for name in SEVERITIES
    }
    return {
        "clean": 100 * float(logits.argmax(1).eq(test.label).double().mean()),
        "clean of attacked": accuracy_under(None, model, x, label),
        "clean of spoilt": accuracy_under(None, model, x[first], label[first]),
        **{name: accuracy_under(attack, model, x, label) for name, attack in attacks().items()},
        "corruptions": spoilt,
        "spoilt": sum(sum(of) for of in spoilt.values()) / sum(len(of) for of in spoilt.values()),
        "ece": 100 * calibration_error(logits.softmax(1), test.label),
        "ece, temperature": 100 * calibration_error((logits / temperature).softmax(1), test.label),
        "temperature": temperature,
    }


def table(asked: Robustness) -> str:
    """Means over seeds, and differences from each method's baseline, seed by seed, with 95 % t-intervals.

    none seen: no difference seen at this budget, as the interval holds 0.
    """
    found = {name: _found(name, asked) for name in (UNTRAINED, *(asked.methods or ENTRIES))}
    found = {name: results for name, results in found.items() if len(results) > 1}
    head = " | ".join(COLUMNS.values())
    rows = [f"| | {head} | CPU seconds a run |", "|---|" + "---|" * (len(COLUMNS) + 1)]
    for name, results in found.items():
        cells = [_interval([result["results"][name][key] for result in results]) for key in COLUMNS]
        seconds = "" if name == UNTRAINED else f"{sum(result['cpu_seconds'] for result in results) / len(results):.0f}"
        rows.append(f"| {name} | {' | '.join(cells)} | {seconds} |")
    rows += ["", f"| difference | {head} |", "|---|" + "---|" * len(COLUMNS)]
    for name, other in AGAINST:
        if name in found and other in found:
            cells = [_gap(found[name], name, found[other], other, key) for key in COLUMNS]
            rows.append(f"| {name} - {other} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _found(name: str, asked: Robustness) -> list[dict[str, Any]]:
    run = "simclr" if name == UNTRAINED else name
    paths = [_path(run, asked, seed) for seed in range(asked.seeds)]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]


def _gap(ours: list[dict[str, Any]], name: str, theirs: list[dict[str, Any]], other: str, key: str) -> str:
    one, two = ({r["seed"]: r["results"][side][key] for r in runs} for runs, side in ((ours, name), (theirs, other)))
    seeds = sorted(one.keys() & two.keys())
    if len(seeds) < 2:
        return ""
    gap = over_seeds([one[seed] - two[seed] for seed in seeds])
    return f"{gap:+.1f}{', none seen' if gap.low <= 0 <= gap.high else ''}"


def _interval(values: list[float]) -> str:
    mean, low, high = over_seeds(values)
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def _row(numbers: dict[str, Any]) -> str:
    return ", ".join(f"{name} {numbers[name]:.1f}" for name in COLUMNS)


if __name__ == "__main__":
    main(tyro.cli(Robustness, args=sys.argv[1:]))
