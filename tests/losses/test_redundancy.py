from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nearfar.losses.redundancy import barlow, standardize
from tests.losses.ranks import hold_ranks_to_one
from tests.two_ranks import Pool


def rows(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_correlation(z1: Tensor, z2: Tensor) -> list[list[float]]:
    def columns(z: Tensor) -> list[list[float]]:
        out = []
        for column in z.T.tolist():
            mean = sum(column) / len(column)
            variance = sum((x - mean) ** 2 for x in column) / len(column)
            out.append([(x - mean) / math.sqrt(variance + 1e-5) for x in column])
        return out

    return [[sum(x * y for x, y in zip(a, b, strict=True)) / len(a) for b in columns(z2)] for a in columns(z1)]


def slow_barlow(z1: Tensor, z2: Tensor, lam: float) -> float:
    c = slow_correlation(z1, z2)
    d = len(c)
    off = sum(c[i][j] ** 2 for i in range(d) for j in range(d) if i != j)
    return sum((c[i][i] - 1) ** 2 for i in range(d)) + lam * off


@pytest.mark.parametrize(("n", "d"), [(2, 1), (9, 4), (4, 4), (4, 9), (2, 12)])
@pytest.mark.parametrize("lam", [0.0, 0.005, 1.0])
def test_barlow(n: int, d: int, lam: float) -> None:
    z1, z2 = rows(n, d, 0), rows(n, d, 1)
    assert float(barlow(z1, z2, lam=lam)) == pytest.approx(slow_barlow(z1, z2, lam))


@pytest.mark.parametrize(("n", "d"), [(9, 4), (4, 9)])
def test_gradient(n: int, d: int) -> None:
    z1, z2 = rows(n, d, 0).requires_grad_(), rows(n, d, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: barlow(a, b, lam=0.1), (z1, z2))


def test_views_samples_features_shift_and_scale_do_not_matter() -> None:
    z1, z2 = rows(20, 4, 0), rows(20, 4, 1)
    want = barlow(z1, z2)
    torch.testing.assert_close(barlow(z2, z1), want)
    torch.testing.assert_close(barlow(z1.flip(0), z2.flip(0)), want)
    torch.testing.assert_close(barlow(z1.flip(1), z2.flip(1)), want)
    torch.testing.assert_close(barlow(z1 * 3 + 100, z2), want, rtol=1e-4, atol=1e-4)


def test_closed_forms() -> None:
    orthogonal = torch.linalg.qr(rows(20, 5, 0) - rows(20, 5, 0).mean(0))[0] * 1000  # each column has mean 0
    assert float(barlow(orthogonal, orthogonal)) == pytest.approx(0, abs=1e-8)
    flipped = orthogonal * torch.tensor([-1.0, 1, 1, 1, 1], dtype=torch.float64)
    assert float(barlow(orthogonal, flipped)) == pytest.approx(4)
    constant = torch.ones(6, 5, dtype=torch.float64).requires_grad_()
    assert float(barlow(constant, constant).detach()) == pytest.approx(5)
    assert torch.autograd.grad(barlow(constant, constant), constant)[0].isfinite().all()


def test_without_lam_features_do_not_feel_each_other() -> None:
    z1, z2 = rows(9, 4, 0).requires_grad_(), rows(9, 4, 1)
    gradient = torch.autograd.grad(barlow(z1, z2, lam=0), z1)[0]
    other = torch.cat([z1[:, :1], rows(9, 3, 5)], 1)
    changed = torch.autograd.grad(barlow(other, z2, lam=0), other)[0]
    torch.testing.assert_close(changed[:, 0], gradient[:, 0])


def test_half_precision_is_computed_in_float32() -> None:
    z1, z2 = rows(8, 4, 0).half(), rows(8, 4, 1).half()
    with torch.autocast("cpu", torch.bfloat16):
        for cut in (8, 3):
            got = barlow(z1[:cut], z2[:cut])
            assert got.dtype == torch.float32
            torch.testing.assert_close(got, barlow(z1[:cut].double(), z2[:cut].double()).float(), rtol=1e-5, atol=1e-5)
    assert standardize(z1).dtype == torch.float32


def test_one_row_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 rows"):
        barlow(rows(1, 4, 0), rows(1, 4, 1))


def _barlow(z1: Tensor, z2: Tensor) -> Tensor:
    return barlow(z1, z2, lam=0.05)


@pytest.mark.parametrize(("n", "d"), [(8, 4), (8, 12), (8, 6), (4, 5)])  # 6 is more than the rows of one rank
def test_two_ranks(two_ranks: Pool, n: int, d: int) -> None:
    hold_ranks_to_one(two_ranks, _barlow, rows(n, d, 0), rows(n, d, 1))
