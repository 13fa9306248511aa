"""The parts of a suite that take no labels, or can do without: other data, geometry, likeness to other encoders."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from nearfar.batch import MISSING
from nearfar.errors import UserError
from nearfar.evaluation.cka import cka
from nearfar.evaluation.geometry import effective_rank, tolerance, uniformity
from nearfar.evaluation.novelty import NEAREST, SHRUNK, fpr_at, mahalanobis, neighbor_distance, placements
from nearfar.studies.transfer import Row
from nearfar.suite.case import Case, drawn
from nearfar.suite.labeled import PARTS as LABELED
from nearfar.suite.part import Number, Part, Told, of_each
from nearfar.suite.pictures import PARTS as PICTURES

SPREAD, PAIRED, LIKENED = 4000, 1000, 5000
"""Samples of the geometry, of pairs of views, and of CKA, at most."""
BANK = 20_000
"""Training rows to which samples of other data are held, at most."""
SHARE = 20
"""Of few training rows the neighbor is that of a twentieth of them: the last of all would be a class away."""


def _ood(case: Case, row: Row, before: Mapping[str, Told]) -> Told:
    bank = drawn(case.learned, BANK, case.seed)
    tested = _own(case)
    features, other = case.features(row), case.other_features(row)
    k = min(NEAREST, max(1, len(bank) // SHARE))
    scores = {"kNN": lambda x: neighbor_distance(x, features[bank], k)}
    if bool((case.label[bank] != MISSING).any()):
        scores["Mahalanobis"] = lambda x: mahalanobis(x, features[bank], case.label[bank])
    numbers: dict[str, Number] = {}
    for name, score in scores.items():
        inside, outside = score(features[tested]), score(other)
        numbers[f"AUROC, {name} (%)"] = of_each(100 * placements(inside, outside), case, tested)
        numbers[f"FPR95, {name} (%)"] = Number(value=100 * fpr_at(inside, outside), better="lower")
    protocol = {
        "other data": case.other_name,
        "other samples": len(other),
        "own samples": len(tested),
        "training rows": len(bank),
        "k": k,
        "shrunk by": SHRUNK,
    }
    notes = ["intervals are over the samples of one's own"]
    if bool(torch.isin(tested, bank).any()):
        notes.append("no split is named: one's own samples are among the training rows, which makes them look familiar")
    return Told(numbers=numbers, protocol=protocol, notes=notes)


def _own(case: Case) -> torch.Tensor:
    """The samples that are to look familiar: those tested, of several folds those of the first."""
    return drawn(case.once[1] if case.splits else case.tested, SPREAD, case.seed)


def _no_other(case: Case) -> str:
    return "" if case.other is not None else "no other data: name them by --ood"


def _geometry(case: Case, row: Row, before: Mapping[str, Told]) -> Told:
    rows = drawn(case.tested, SPREAD, case.seed)
    x, label = case.features(row)[rows], case.label[rows]
    numbers = {
        "uniformity": Number(value=uniformity(x), better="", places=3),
        "RankMe": Number(value=effective_rank(x), better=""),
        "share of the width (%)": Number(value=100 * effective_rank(x) / x.shape[1], better=""),
    }
    notes = []
    try:
        numbers["tolerance"] = Number(value=tolerance(x, label), better="", places=3)
    except UserError as error:
        notes.append(f"no tolerance: {error}")
    some = drawn(case.tested, PAIRED, case.seed)
    try:
        case.run.insist_trusted(case.run.settings.views)
        first, second = case.two_views(row, some)
    except UserError as error:
        notes.append(f"no alignment: {error}")
    else:
        apart = 2 - 2 * torch.nn.functional.cosine_similarity(first.double(), second.double())
        numbers["alignment"] = of_each(apart, case, some, better="", places=3)
    views = case.run.settings.views
    protocol = {"samples": len(rows), "pairs of views": len(some), "views": views, "width": x.shape[1]}
    return Told(numbers=numbers, protocol=protocol, notes=notes)


def _cka(case: Case, row: Row, before: Mapping[str, Told]) -> Told:
    rows = drawn(case.tested, LIKENED, case.seed)
    x = case.features(row)[rows]
    others = {one.name: case.features(one) for one in case.rows}
    others |= {name: case.features_beside(name) for name in case.beside}
    numbers = {f"with {name}": Number(value=cka(x, other[rows]), better="", places=3) for name, other in others.items()}
    return Told(numbers=numbers, protocol={"kernel": "linear", "samples": len(rows)})


def _few(case: Case) -> str:
    return "" if len(case.tested) > 1 else "fewer than two samples"


def _ood_seconds(case: Case) -> float:
    assert case.other is not None
    return 1 + case.pace * len(case.other) + len(case.other) * min(BANK, len(case.learned)) * 1e-7


def _geometry_seconds(case: Case) -> float:
    return 2 + min(PAIRED, len(case.tested)) * 2 * (case.pace + 0.001)


def _cka_seconds(case: Case) -> float:
    return 0.5 + len(case.beside) * case.pace * len(case.samples) / len(case.rows)


UNLABELED = (
    Part(name="ood", source="arXiv 2204.06507, 1807.03888", unfit=_no_other, seconds=_ood_seconds, measure=_ood),
    Part(
        name="geometry",
        source="arXiv 2005.10242, 2210.02885, 2012.09740",
        unfit=_few,
        seconds=_geometry_seconds,
        measure=_geometry,
    ),
    Part(name="cka", source="arXiv 1905.00414", unfit=_few, seconds=_cka_seconds, measure=_cka),
)

PARTS = {part.name: part for part in (*LABELED, *PICTURES, *UNLABELED)}
"""All parts, by name."""
