from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from nearfar.errors import UserError
from nearfar.evaluation.geometry import alignment, effective_rank, spread, tolerance, uniformity


def test_alignment_and_uniformity_equal_loops():
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(13, 4, generator=g), torch.randn(13, 4, generator=g)
    x, y = F.normalize(a, dim=1), F.normalize(b, dim=1)
    assert alignment(a, b) == pytest.approx(sum(float((x[i] - y[i]).square().sum()) for i in range(13)) / 13, abs=1e-6)
    pairs = [math.exp(-2 * float((x[i] - x[j]).square().sum())) for i in range(13) for j in range(13) if i != j]
    for chunk in (5, 1024):
        assert uniformity(a, chunk=chunk) == pytest.approx(math.log(sum(pairs) / len(pairs)), abs=1e-6)
    assert alignment(a, 3 * a) == pytest.approx(0, abs=1e-6)


def test_collapse_and_spread():
    same = torch.ones(200, 16)
    round_ = torch.randn(4000, 16, generator=torch.Generator().manual_seed(0))
    assert uniformity(same) == pytest.approx(0, abs=1e-5)
    assert uniformity(round_) < -3
    assert effective_rank(same) == pytest.approx(1, abs=1e-4)
    assert effective_rank(round_) == pytest.approx(16, abs=0.1)
    assert spread(same) == pytest.approx(0, abs=1e-3)
    assert spread(round_) == pytest.approx(1, abs=0.02)


def test_effective_rank_by_hand():
    """Singular values 3 and 1: entropy of (3/4, 1/4)."""
    x = torch.tensor([[3.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    expected = math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert effective_rank(x) == pytest.approx(expected)
    assert effective_rank(x.T) == pytest.approx(expected)


def test_errors():
    with pytest.raises(ValueError, match="one row per pair"):
        alignment(torch.ones(3, 2), torch.ones(2, 2))
    with pytest.raises(ValueError, match="1 row has no pair"):
        uniformity(torch.ones(1, 2))
    with pytest.raises(ValueError, match="not finite"):
        spread(torch.full((2, 2), torch.inf))


def test_tolerance_is_the_mean_cosine_of_pairs_of_one_class() -> None:
    generator = torch.Generator().manual_seed(0)
    x, label = torch.randn(30, 5, generator=generator), torch.randint(-1, 4, (30,), generator=generator)
    z = F.normalize(x, dim=1)
    pairs = [(i, j) for i in range(30) for j in range(30) if i != j and label[i] == label[j] != -1]
    slow = sum(float(z[i] @ z[j]) for i, j in pairs) / len(pairs)
    assert tolerance(x, label) == pytest.approx(slow, abs=1e-6)
    assert tolerance(torch.ones(3, 2), torch.tensor([0, 0, 1])) == pytest.approx(1)
    with pytest.raises(UserError, match="pairs of one class"):
        tolerance(x[:3], torch.tensor([0, 1, -1]))
