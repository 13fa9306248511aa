from __future__ import annotations

from itertools import permutations

import pytest
import torch

from nearfar.batch import MISSING
from nearfar.evaluation.clusters import clusters


def test_accuracy_equals_the_best_of_all_matchings():
    g = torch.Generator().manual_seed(0)
    found, truth = torch.randint(4, (50,), generator=g), torch.randint(4, (50,), generator=g)
    best = max(float((torch.tensor(p)[found] == truth).double().mean()) for p in permutations(range(4)))
    out = clusters(found, truth)
    assert out["accuracy"] == pytest.approx(100 * best)
    renamed = clusters(torch.tensor([2, 0, 3, 1])[found], truth)
    assert [renamed[n] for n in ("accuracy", "nmi", "ari")] == pytest.approx(
        [out[n] for n in ("accuracy", "nmi", "ari")]
    )


def test_perfect_single_and_more_clusters_than_classes():
    truth = torch.tensor([0, 0, 0, 1, 1, 2])
    perfect = clusters(torch.tensor([5, 5, 5, 0, 0, 3]), truth)
    assert [perfect[n] for n in ("accuracy", "nmi", "ari")] == pytest.approx([100, 1, 1])
    single = clusters(torch.zeros(6, dtype=torch.int64), truth)
    assert [single[n] for n in ("accuracy", "nmi", "ari")] == pytest.approx([50, 0, 0])
    assert clusters(torch.arange(6), truth)["accuracy"] == pytest.approx(50)


def test_missing_and_errors():
    out = clusters(torch.tensor([0, 1, MISSING, 1]), torch.tensor([1, 0, 0, MISSING]))
    assert out["protocol"]["rows"] == 2
    with pytest.raises(ValueError, match="none of the 2 rows"):
        clusters(torch.tensor([0, 1]), torch.tensor([MISSING, MISSING]))
    with pytest.raises(ValueError, match="wanted N and N"):
        clusters(torch.zeros(2), torch.zeros(3))
