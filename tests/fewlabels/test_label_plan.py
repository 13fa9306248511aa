from __future__ import annotations

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import nearfar
from nearfar.batch import MISSING
from nearfar.fewlabels.classifier import Classifier
from nearfar.fewlabels.label_plan import facilities, label_plan
from nearfar.modalities.image.samples import open_images
from tests.fewlabels.conftest import samples
from tests.tiny import tiny_images


def reached(voters: Tensor, candidates: Tensor, chosen: tuple[int, ...], weight: Tensor) -> float:
    return float((weight * (voters @ candidates[list(chosen)].T).amax(1)).sum())


def test_each_choice_adds_the_most_and_all_are_near_the_best() -> None:
    torch.manual_seed(0)
    rows, weight = F.normalize(torch.randn(12, 3), dim=1), torch.rand(12)
    chosen = facilities(rows, rows, 3, weight=weight).tolist()
    for n in range(3):
        own = reached(rows, rows, tuple(chosen[: n + 1]), weight)
        others = [reached(rows, rows, (*chosen[:n], other), weight) for other in range(12)]
        assert own == pytest.approx(max(others), abs=1e-5)
    best = max(reached(rows, rows, some, weight) for some in itertools.combinations(range(12), 3))
    worst = -float(weight.sum())
    assert reached(rows, rows, tuple(chosen), weight) - worst >= (1 - 1 / np.e) * (best - worst)


def test_what_is_near_a_labeled_sample_is_not_asked_for() -> None:
    groups = F.normalize(torch.tensor([[1.0, 0.0], [0.99, 0.1], [0.0, 1.0], [0.1, 0.99]]), dim=1)
    nearest = groups @ groups[0]
    assert facilities(groups, groups, 1, nearest=nearest).item() in (2, 3)


def test_nothing_is_chosen_twice() -> None:
    same = torch.ones(4, 2) / 2**0.5
    assert sorted(facilities(same, same, 4).tolist()) == [0, 1, 2, 3]


def test_a_plan_leaves_out_what_is_labeled_or_for_testing(run: nearfar.Run, tmp_path: Path) -> None:
    images = open_images(tiny_images())
    label = torch.full((48,), MISSING)
    label[:6] = torch.arange(6) % 2
    images.label, images.classes = label, ["a", "b"]
    images.split = ["test" if 6 <= i < 16 else "" for i in range(48)]
    plan = label_plan(run, images, count=5)
    assert len(set(plan.chosen.tolist())) == 5
    assert all(i >= 16 for i in plan.chosen.tolist())
    assert plan.near >= plan.near_random
    assert 0 < int(plan.stands_for.sum()) <= 48
    rows = list(csv.DictReader(plan.write(tmp_path / "plan.csv").read_text().splitlines()))
    assert [int(row["index"]) for row in rows] == [*plan.chosen.tolist(), *range(6)]
    assert [row["label"] for row in rows] == [""] * 5 + ["a", "b"] * 3
    first, counted = int(plan.chosen[0]), int(plan.stands_for[0])
    assert rows[0]["why"] == f"stands for {counted} of 48"
    assert plan.captions()[0] == f"{first}\n1: stands for {counted}"
    assert len(label_plan(run, images, labels="none", count=38).chosen) == 38
    with pytest.raises(ValueError, match="--count 40: 32 of 48"):
        label_plan(run, images, count=40)
    with pytest.raises(ValueError, match="nearfar finetune RUN"):
        label_plan(run, images, count=5, by="uncertainty")
    with pytest.raises(TypeError, match="did you mean count"):
        label_plan(run, images, counts=5)


def test_a_classifier_asks_where_it_is_unsure(linear: Classifier) -> None:
    images = samples(48)
    images.label = torch.where(torch.arange(48) < 12, images.label, MISSING)
    plan = label_plan(linear, images, count=4)
    p = linear.predict(images).probabilities.sort(descending=True).values
    assert plan.unsure is not None
    torch.testing.assert_close(plan.unsure, 1 - (p[:, 0] - p[:, 1]))
    assert plan.guess == linear.predict(images).label
    assert not torch.equal(plan.chosen, label_plan(linear, images, count=4, by="coverage").chosen)
