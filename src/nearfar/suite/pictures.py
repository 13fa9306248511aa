"""The parts of a suite that change images before an encoder sees them. No more than a batch of them is held."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from nearfar.evaluation.corruptions import SEVERITIES, corrupt
from nearfar.evaluation.intervals import drawn_often
from nearfar.evaluation.robustness import Attack, corruption_error, fgsm, pgd
from nearfar.method import derive_seed
from nearfar.studies.transfer import Row
from nearfar.suite.case import Case
from nearfar.suite.labeled import no_labels
from nearfar.suite.part import Number, Part, Told, of_each, of_hits

CORRUPTED, ATTACKED = 500, 200
"""Tested samples, at most."""
STEPS = 10
"""Of PGD, each a quarter of epsilon, from a random start."""
RADII = {"FGSM": (1, 2, 4, 8), "PGD": (2, 8)}
"""In 255ths of the range of a pixel."""
DRAWS = 1000


def _no_images(case: Case) -> str:
    kind = case.run.kind
    if not kind.pixels or kind.frames:
        return f"samples of the kind {kind.name} are no images"
    if why := no_labels(case):
        return why
    _, view = next(case.images(torch.arange(1)))
    low, high = view.aminmax()
    if view.dim() != 4 or not -1e-6 <= float(low) <= float(high) <= 1 + 1e-6:
        return "the plain view is not of numbers between 0 and 1"
    return "" if len(case.some_tested(1, known=True)) else "no tested sample is of a class that is learned from"


def _not_of_color(case: Case) -> str:
    if why := _no_images(case):
        return why
    _, view = next(case.images(torch.arange(1)))
    return "" if view.shape[1] in (1, 3) else f"images of {view.shape[1]} channels, where 1 or 3 can be corrupted"


def _model(case: Case, row: Row) -> Callable[[Tensor], Tensor]:
    """From images in [0, 1] to logits, an encoder with its linear classifier."""
    probe, encoder = case.probe(row), copy.deepcopy(row.encoder).eval().requires_grad_(False)
    device = next(encoder.parameters()).device
    # What is divided by changes no answer; it keeps the softmax from being flat or cut off, where no slope is left.
    return lambda x: (probe.logits(encoder(x.to(device)).float()) / probe.plain).cpu()


def _corruptions(case: Case, row: Row, before: Mapping[str, Told]) -> Told:
    rows = case.some_tested(CORRUPTED, known=True)
    probe, model = case.probe(row), _model(case, row)
    clean = torch.empty(len(rows), dtype=torch.bool)
    errors = torch.zeros(len(rows), len(SEVERITIES), 5)  # N x corruptions x severities, 1 where it errs
    at = 0
    with torch.no_grad():
        for some, view in case.images(rows):
            own, truth = slice(at, at + len(some)), probe.numbers(case.label[some])
            clean[own] = model(view).argmax(1) == truth
            for c, name in enumerate(SEVERITIES):
                for severity in range(1, 6):
                    spoilt = _spoilt(view, name, severity, case.seed + at)
                    errors[own, c, severity - 1] = (model(spoilt).argmax(1) != truth).float()
            at += len(some)
    of_each_sample = errors.sum(2)  # N x corruptions, 0 to 5
    base = next((told.kept["errors"] for told in before.values()), None)
    baseline = of_each_sample if base is None else torch.tensor(base, dtype=torch.float32)
    named = next(iter(before), row.name)
    never = [name for c, name in enumerate(SEVERITIES) if not baseline[:, c].any()]
    why = f"no mCE: the {named} never errs under {', '.join(never)}, to which errors would be relative"
    error = (
        {} if never else {f"mCE, {named} = 100": _mean_error(of_each_sample, baseline, case, rows, own=base is None)}
    )
    numbers = {
        "clean (%)": of_hits(clean, case, rows),
        "mean over corruptions (%)": of_each(100 * (1 - errors.mean((1, 2)).double()), case, rows),
        **error,
        **{
            f"{name} (%)": of_each(100 * (1 - errors[:, c].mean(1).double()), case, rows)
            for c, name in enumerate(SEVERITIES)
        },
    }
    protocol = {
        "baseline of mCE": named,
        "corruptions": list(SEVERITIES),
        "severities": 5,
        "samples": len(rows),
        "seed": case.seed,
        **probe.facts,
    }
    notes = [why] if never else []
    return Told(numbers=numbers, protocol=protocol, notes=notes, kept={"errors": of_each_sample.int().tolist()})


def _spoilt(view: Tensor, name: str, severity: int, seed: int) -> Tensor:
    """Corrupted images, the noise of each from a seed of its own, so that it does not depend on its batch."""
    if name != "noise":
        return corrupt(view, name, severity)
    return torch.cat([corrupt(one[None], name, severity, seed=seed + i) for i, one in enumerate(view)])


def _mean_error(errors: Tensor, baseline: Tensor, case: Case, rows: Tensor, *, own: bool) -> Number:
    """mCE, with a bootstrap interval over samples, drawn for both alike.  errors, baseline: N x corruptions."""
    if own:
        return Number(value=100.0, better="lower")
    group = None if case.group is None else case.group[rows]
    often = drawn_often(len(rows), seed=case.seed, group=group, draws=DRAWS)  # 1 + B x N
    # A draw may hold no error of the baseline, though there are some.
    share = 100 * ((often @ errors.double()) / (often @ baseline.double()).clamp(min=0.5)).mean(1)
    low, high = share[1:].quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    sums = [dict(zip(SEVERITIES, ([x] for x in e.sum(0).tolist()), strict=True)) for e in (errors, baseline)]
    value = corruption_error(*sums)
    return Number(value=value, low=min(low, value), high=max(high, value), better="lower")


def _attacks(case: Case, row: Row, before: Mapping[str, Told]) -> Told:
    rows = case.some_tested(ATTACKED, known=True)
    probe, model = case.probe(row), _model(case, row)
    hits: dict[str, list[Tensor]] = {}
    for some, view in case.images(rows):
        truth = probe.numbers(case.label[some])
        generator = torch.Generator().manual_seed(derive_seed(case.seed, int(some[0]), 10))
        attacks: dict[str, Attack | None] = {"clean (%)": None}
        for radius in RADII["FGSM"]:
            attacks[f"FGSM {radius}/255 (%)"] = partial(fgsm, epsilon=radius / 255)
        for radius in RADII["PGD"]:
            attacks[f"PGD {radius}/255 (%)"] = partial(pgd, epsilon=radius / 255, steps=STEPS, generator=generator)
        for title, attack in attacks.items():
            seen = view if attack is None else attack(model, view, truth)
            with torch.no_grad():
                hits.setdefault(title, []).append(model(seen).argmax(1) == truth)
    numbers = {title: of_hits(torch.cat(hit), case, rows) for title, hit in hits.items()}
    protocol = {
        "batch": min(128, case.run.batch),  # of which each has random starts of its own
        "norm": "linf",
        "PGD steps": STEPS,
        "PGD stride": "epsilon / 4",
        "PGD start": "random",
        "samples": len(rows),
        "seed": case.seed,
        **probe.facts,
    }
    notes = ["upper bounds: a stronger attack would leave fewer"]
    return Told(numbers=numbers, protocol=protocol, notes=notes)


def _corruption_seconds(case: Case) -> float:
    rows = min(CORRUPTED, len(case.tested))
    return 1 + rows * (31 * case.pace + 10 * 2e-4 + 0.003)


def _attack_seconds(case: Case) -> float:
    rows = min(ATTACKED, len(case.tested))
    passes = len(RADII["FGSM"]) * 4 + len(RADII["PGD"]) * STEPS * 3
    return 1 + rows * case.pace * passes


PARTS = (
    Part(
        name="corruptions",
        source="arXiv 1903.12261",
        unfit=_not_of_color,
        seconds=_corruption_seconds,
        measure=_corruptions,
    ),
    Part(
        name="attacks",
        source="arXiv 1412.6572, 1706.06083",
        unfit=_no_images,
        seconds=_attack_seconds,
        measure=_attacks,
    ),
)
