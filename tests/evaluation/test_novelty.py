from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nearfar.batch import MISSING
from nearfar.errors import UserError
from nearfar.evaluation.novelty import SHRUNK, auroc, fpr_at, mahalanobis, neighbor_distance, placements


def test_auroc_agrees_with_scikit_learn_with_ties_too() -> None:
    from sklearn.metrics import roc_auc_score

    generator = torch.Generator().manual_seed(0)
    inside = torch.randint(0, 12, (80,), generator=generator).double()
    outside = torch.randint(4, 20, (50,), generator=generator).double()
    truth = np.r_[np.ones(80), np.zeros(50)]
    wanted = roc_auc_score(truth, -torch.cat([inside, outside]).numpy())
    assert auroc(inside, outside) == pytest.approx(wanted)
    slow = [sum((o > i) + (o == i) / 2 for o in outside.tolist()) / 50 for i in inside.tolist()]
    assert placements(inside, outside).tolist() == pytest.approx(slow)
    assert auroc(inside, inside) == pytest.approx(0.5)


def test_fpr_agrees_with_the_curve_of_scikit_learn() -> None:
    from sklearn.metrics import roc_curve

    generator = torch.Generator().manual_seed(1)
    inside = torch.randn(200, generator=generator)
    outside = torch.randn(150, generator=generator) + 1
    truth = np.r_[np.ones(200), np.zeros(150)]
    fpr, tpr, _ = roc_curve(truth, -torch.cat([inside, outside]).numpy(), drop_intermediate=False)
    assert fpr_at(inside, outside) == pytest.approx(float(fpr[tpr >= 0.95 - 1e-9][0]))


def test_fpr_by_hand() -> None:
    inside = torch.arange(20.0)  # 19 of 20 are at most 18
    assert fpr_at(inside, torch.tensor([17.0, 18.0, 18.5, 30.0])) == 0.5
    assert fpr_at(inside, inside + 100) == 0


def test_neighbor_distance_is_that_on_the_sphere() -> None:
    generator = torch.Generator().manual_seed(2)
    query, bank = torch.randn(7, 5, generator=generator), torch.randn(30, 5, generator=generator)
    far = torch.cdist(F.normalize(query, dim=1), F.normalize(bank, dim=1)).sort(1).values
    torch.testing.assert_close(neighbor_distance(query, bank, 4).float(), far[:, 3], atol=1e-3, rtol=0)
    torch.testing.assert_close(neighbor_distance(9 * query, bank, 99).float(), far[:, -1], atol=1e-3, rtol=0)


def test_mahalanobis_agrees_with_a_slow_loop() -> None:
    generator = torch.Generator().manual_seed(3)
    bank, query = torch.randn(60, 4, generator=generator), torch.randn(9, 4, generator=generator)
    label = torch.arange(60) % 3
    label[0] = MISSING
    x, y = bank[1:].double().numpy(), label[1:].numpy()
    means = [x[y == c].mean(0) for c in range(3)]
    within = np.concatenate([x[y == c] - means[c] for c in range(3)])
    covariance = within.T @ within / len(x)
    inverse = np.linalg.inv(covariance + SHRUNK * np.trace(covariance) / 4 * np.eye(4))
    slow = [min((q - m) @ inverse @ (q - m) for m in means) for q in query.double().numpy()]
    assert mahalanobis(query, bank, label).tolist() == pytest.approx(slow)


def test_mahalanobis_of_one_row_a_class_is_the_distance() -> None:
    bank = torch.tensor([[0.0, 0.0], [4.0, 0.0]])
    found = mahalanobis(torch.tensor([[1.0, 1.0]]), bank, torch.tensor([0, 1]))
    assert float(found) == pytest.approx(2 / (1 + SHRUNK))


def test_refuses_no_scores() -> None:
    with pytest.raises(UserError, match="0 scores"):
        auroc(torch.zeros(0), torch.zeros(3))
