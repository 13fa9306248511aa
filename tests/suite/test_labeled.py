"""The parts that take labels and features alone, on features that are made up."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from nearfar.batch import MISSING
from nearfar.evaluation.calibration import brier, calibration_error, nll
from nearfar.suite.case import Case
from nearfar.suite.unlabeled import PARTS

COUNT = (300, 120, 60, 30)
"""Samples of each class: of the training half more than 100, 60, 30 and 15."""


@pytest.fixture
def case() -> Case:
    generator = torch.Generator().manual_seed(0)
    label = torch.repeat_interleave(torch.arange(4), torch.tensor(COUNT))
    label = label[torch.randperm(len(label), generator=generator)]
    attribute = torch.randint(0, 2, (len(label),), generator=generator)
    x = torch.randn(len(label), 6, generator=generator) + 1.5 * torch.eye(6)[label]
    x[:, 5] += 3 * ((attribute == 1) & (label == 1))  # which are then hard to tell or easy
    place = torch.arange(len(label))
    samples: Any = SimpleNamespace(
        label=label,
        attribute=attribute,
        group=torch.full_like(label, MISSING),
        classes=["a", "b", "c", "d"],
    )
    row: Any = SimpleNamespace(name="trained encoder")
    learned, tested = place[::2], place[1::2]
    made = Case(
        run=cast("Any", None),
        rows=[row],
        samples=samples,
        splits=[(learned, tested)],
        tested=tested,
        seed=0,
        folder=Path("nowhere"),
    )
    made._features["trained encoder", "data"] = x
    return made


def told(case: Case, name: str) -> dict[str, float]:
    part = PARTS[name]
    assert part.unfit(case) == ""
    return {title: one.value for title, one in part.measure(case, case.main, {}).numbers.items()}


def answers(case: Case) -> torch.Tensor:
    probe = case.probe(case.main)
    return probe.present[probe.logits(case.features(case.main)[case.tested]).argmax(1)]


def test_the_worst_group_is_that_of_a_slow_loop(case: Case) -> None:
    answer, label, attribute = answers(case), case.label[case.tested], case.samples.attribute[case.tested]
    each = []
    for c in range(4):
        for a in range(2):
            own = (label == c) & (attribute == a)
            if int(own.sum()) >= 20:
                each.append(100 * float((answer[own] == c).double().mean()))
    made = told(case, "groups")
    assert 0 < min(each) < max(each) < 100
    assert made["worst group (%)"] == pytest.approx(min(each))
    assert made["mean over groups (%)"] == pytest.approx(sum(each) / len(each))


def test_many_medium_and_few_are_means_over_their_classes(case: Case) -> None:
    answer, label = answers(case), case.label[case.tested]
    counts = torch.bincount(case.label[case.once[0]]).tolist()
    kind = ["many" if n > 100 else "few" if n < 20 else "medium" for n in counts]
    assert set(kind) == {"many", "medium", "few"}
    made = told(case, "longtail")
    for name in ("many", "medium", "few"):
        own = [100 * float((answer[label == c] == c).double().mean()) for c in range(4) if kind[c] == name]
        assert made[f"{name} (%)"] == pytest.approx(sum(own) / len(own))
    assert made["all (%)"] == pytest.approx(100 * float((answer == label).double().mean()))


def test_calibration_is_that_of_the_functions_and_no_test_row_fits_the_temperature(case: Case) -> None:
    made, probe = told(case, "calibration"), case.probe(case.main)
    logits, label = probe.logits(case.features(case.main)[case.tested]).double(), case.label[case.tested]
    heat = probe.calibration.temperature
    assert heat is not None
    for words, scale in (("", probe.plain), (" with temperature", heat)):
        p = (logits / scale).softmax(1)
        assert made[f"ECE{words} (%)"] == pytest.approx(100 * calibration_error(p, label))
        assert made[f"NLL{words}"] == pytest.approx(nll(logits / scale, label))
        assert made[f"Brier{words}"] == pytest.approx(brier(p, label))
    case._features["trained encoder", "data"][case.tested] = 0
    case._probes.clear()
    assert case.probe(case.main).calibration.temperature == heat


def test_cameras_remove_what_the_same_camera_saw(case: Case) -> None:
    x = torch.nn.functional.normalize(case.features(case.main)[case.tested], dim=1)
    label, camera = case.label[case.tested], case.samples.attribute[case.tested]
    first, precision = [], []
    for i in range(len(label)):
        order = (x @ x[i]).argsort(descending=True, stable=True).tolist()
        kept = [j for j in order if j != i and not (label[j] == label[i] and camera[j] == camera[i])]
        hit = [bool(label[j] == label[i]) for j in kept]
        if any(hit):
            first.append(hit[0])
            ranks = [rank for rank, right in enumerate(hit, 1) if right]
            precision.append(sum(n / rank for n, rank in enumerate(ranks, 1)) / len(ranks))
    made = told(case, "cameras")
    assert made["CMC@1 (%)"] == pytest.approx(100 * sum(first) / len(first))
    assert made["mAP (%)"] == pytest.approx(100 * sum(precision) / len(precision), abs=0.02)


def test_r_precision_is_that_of_a_slow_loop(case: Case) -> None:
    x = torch.nn.functional.normalize(case.features(case.main)[case.tested], dim=1)
    label, shares = case.label[case.tested], []
    for i in range(len(label)):
        order = [j for j in (x @ x[i]).argsort(descending=True).tolist() if j != i]
        count = int((label == label[i]).sum()) - 1
        shares.append(sum(bool(label[j] == label[i]) for j in order[:count]) / count)
    assert told(case, "retrieval")["R-precision (%)"] == pytest.approx(100 * sum(shares) / len(shares), abs=0.02)


def test_clusters_agree_with_scikit_learn(case: Case) -> None:
    from sklearn.cluster import KMeans
    from sklearn.metrics import normalized_mutual_info_score

    x = torch.nn.functional.normalize(case.features(case.main)[case.tested], dim=1)
    found = KMeans(4, n_init=cast("Any", 10), random_state=0).fit_predict(x.numpy())
    wanted = normalized_mutual_info_score(case.label[case.tested].numpy(), found)
    assert told(case, "clusters")["NMI"] == pytest.approx(wanted, abs=0.03)


@pytest.mark.parametrize(("name", "why"), [("groups", "attribute"), ("cameras", "attribute"), ("ood", "--ood")])
def test_what_does_not_apply_says_why(case: Case, name: str, why: str) -> None:
    case.samples.attribute = torch.full_like(case.label, MISSING)
    assert why in PARTS[name].unfit(case)
