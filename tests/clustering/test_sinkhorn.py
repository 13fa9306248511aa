from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nearfar.clustering.sinkhorn import sinkhorn
from nearfar.distributed import local
from tests.losses.ranks import unit
from tests.two_ranks import Pool


def slow_sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """The paper's steps on K x B, one row and one column at a time."""
    mass = (scores.double() / epsilon).exp().T
    mass = mass / mass.sum()
    k, b = mass.shape
    for _ in range(iterations):
        for row in range(k):
            mass[row] = mass[row] / mass[row].sum() / k
        for column in range(b):
            mass[:, column] = mass[:, column] / mass[:, column].sum() / b
    return (mass * b).T


def scores(n: int = 12, k: int = 5) -> Tensor:
    return unit(n, 4, 0) @ unit(k, 4, 1).T


@pytest.mark.parametrize("iterations", [1, 3, 10])
@pytest.mark.parametrize("epsilon", [0.02, 0.05, 1.0])  # 0.02 goes through logarithms
def test_sinkhorn(epsilon: float, iterations: int) -> None:
    want = slow_sinkhorn(scores(), epsilon, iterations)
    got = sinkhorn(scores(), epsilon=epsilon, iterations=iterations)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(got.sum(1), torch.ones(12, dtype=torch.float64))
    single = sinkhorn(scores().float(), epsilon=epsilon, iterations=iterations)
    torch.testing.assert_close(single.double(), want, rtol=1e-3, atol=1e-5)


def test_many_iterations_balance_the_prototypes() -> None:
    codes = sinkhorn(scores(), epsilon=0.2, iterations=200)
    torch.testing.assert_close(codes.sum(0), torch.full((5,), 12 / 5, dtype=torch.float64))


def test_a_constant_does_not_matter_and_a_large_epsilon_is_uniform() -> None:
    torch.testing.assert_close(sinkhorn(scores() + 100), sinkhorn(scores()))
    torch.testing.assert_close(sinkhorn(scores(), epsilon=1e9), torch.full((12, 5), 0.2, dtype=torch.float64))


def test_large_scores_and_half_precision_stay_finite() -> None:
    for factor in (1, 1.4, 30, 1e4):
        codes = sinkhorn((scores() * factor).half())
        assert codes.dtype == torch.float32
        assert codes.isfinite().all()
        torch.testing.assert_close(codes.sum(1), torch.ones(12))


def test_scores_are_left_as_they_were_and_get_no_gradient() -> None:
    given = scores().requires_grad_()
    before = given.detach().clone()
    assert not sinkhorn(given, epsilon=1.0).requires_grad
    assert torch.equal(given, before)


def _codes(epsilon: float) -> Tensor:
    return sinkhorn(local(scores()), epsilon=epsilon)


@pytest.mark.parametrize("epsilon", [0.02, 0.05])
def test_two_ranks(two_ranks: Pool, epsilon: float) -> None:
    got = torch.cat(two_ranks.run(_codes, epsilon))
    torch.testing.assert_close(got, sinkhorn(scores(), epsilon=epsilon), rtol=1e-10, atol=1e-12)
