from __future__ import annotations

import pytest
import torch
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC

from nearfar.data.splits import folds
from nearfar.evaluation.evaluate import evaluate
from nearfar.evaluation.svm import STRENGTHS, svm_answers


def rings(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Points of two classes, inside and around a circle: no line tells them apart."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    angle = 6.283 * torch.rand(n, generator=generator)
    radius = 1 + 1.5 * y + 0.4 * torch.randn(n, generator=generator)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1), y


def test_it_is_the_grid_search_of_scikit_learn_but_for_the_width_of_inner_kernels() -> None:
    x, y = rings(120)
    test, truth = rings(60, 1)
    inner = [(a.numpy(), b.numpy()) for a, b in folds(y, folds=5, seed=0)]
    gamma = 1 / (2 * float(x.double().var(correction=0)))
    search = GridSearchCV(SVC(gamma=gamma), {"C": STRENGTHS}, cv=inner).fit(x.double().numpy(), y.numpy())
    answer, chosen, notes = svm_answers(x, y, test)
    assert chosen["C"] == search.best_params_["C"]
    assert answer.tolist() == search.predict(test.double().numpy()).tolist()
    assert notes == []
    assert float((answer == truth).float().mean()) > 0.85
    scale = SVC(C=chosen["C"]).fit(x.double().numpy(), y.numpy())  # the width that scikit-learn takes by default
    assert answer.tolist() == scale.predict(test.double().numpy()).tolist()


def test_few_labels_and_one_class_are_told() -> None:
    x, _ = rings(6)
    answer, chosen, notes = svm_answers(x, torch.arange(6), x)
    assert (chosen["C"], len(notes)) == (1.0, 1)
    assert answer.shape == (6,)
    assert svm_answers(x, torch.zeros(6, dtype=torch.int64), x)[0].tolist() == [0] * 6


def test_it_is_a_measure_beside_the_others_where_it_is_asked_for() -> None:
    x, y = rings(60)
    parts = folds(y, folds=3, seed=0)
    assert "svm" not in evaluate(x, y, parts, seen_in_training=False)
    made = evaluate(x, y, parts, seen_in_training=False, svm=True)
    assert made["svm"]["accuracy"] > made["linear"]["accuracy"] + 15
    assert sum(made["svm"]["protocol"]["chosen"].values()) == 3
    hits = sum(int((svm_answers(x[a], y[a], x[b])[0] == y[b]).sum()) for a, b in parts)
    assert made["svm"]["accuracy"] == pytest.approx(100 * hits / 60)
