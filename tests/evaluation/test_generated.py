from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from nearfar.evaluation.generated import frechet, precision_recall


def gaussian(n: int, mean: Tensor, deviation: Tensor, seed: int) -> Tensor:
    """N rows with exactly this mean and these uncorrelated deviations."""
    x = torch.randn(n, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x - x.mean(0)
    values, vectors = torch.linalg.eigh(x.T.cov())
    return x @ vectors / values.sqrt() * deviation + mean


def test_the_distance_of_two_gaussians_is_the_closed_form() -> None:
    m1, m2 = torch.tensor([0.0, 1.0, 2.0]).double(), torch.tensor([1.0, 1.0, -1.0]).double()
    s1, s2 = torch.tensor([1.0, 2.0, 0.5]).double(), torch.tensor([1.5, 1.0, 0.5]).double()
    one, other = gaussian(50, m1, s1, 0), gaussian(80, m2, s2, 1)
    want = float((m1 - m2).square().sum() + (s1 - s2).square().sum())
    assert frechet(one, other) == pytest.approx(want, rel=1e-9)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(2)).double())[0]
    assert frechet(one @ turn, other @ turn) == pytest.approx(want, rel=1e-9)
    assert frechet(one, one[torch.randperm(50)]) == pytest.approx(0, abs=1e-9)


def test_covariances_that_do_not_commute_and_rows_fewer_than_columns() -> None:
    import scipy.linalg

    generator = torch.Generator().manual_seed(0)
    for n, m, d in ((40, 30, 6), (5, 7, 12)):
        one, other = (
            torch.randn(k, d, generator=generator, dtype=torch.float64) @ torch.rand(d, d, generator=generator).double()
            for k in (n, m)
        )
        c1, c2 = one.T.cov(), other.T.cov()
        root = torch.as_tensor(np.real(scipy.linalg.sqrtm((c1 @ c2).numpy() + 1e-12 * np.eye(d))))
        want = (one.mean(0) - other.mean(0)).square().sum() + (c1 + c2 - 2 * root).trace()
        assert frechet(one, other) == pytest.approx(float(want), rel=1e-4)


def test_precision_and_recall_are_the_slow_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    real, made = torch.randn(40, 3, generator=generator), 0.5 * torch.randn(30, 3, generator=generator) + 0.7

    def among(rows: Tensor, others: Tensor) -> float:
        count = 0
        for row in rows:
            balls = [sorted(float((a - b).norm()) for b in others)[3] for a in others]
            count += any(float((row - a).norm()) <= r for a, r in zip(others, balls, strict=True))
        return count / len(rows)

    assert precision_recall(real, made) == pytest.approx((among(made, real), among(real, made)))
    assert precision_recall(real, real) == (1, 1)
    assert precision_recall(real, real[:20] + 100) == (0, 0)


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="1 real"):
        frechet(torch.zeros(1, 2), torch.zeros(5, 2))
    with pytest.raises(ValueError, match="k is 3"):
        precision_recall(torch.zeros(9, 2), torch.zeros(3, 2))
