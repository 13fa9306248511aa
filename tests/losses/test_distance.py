from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nearfar import distributed
from nearfar.batch import MISSING
from nearfar.distributed import normalize
from nearfar.losses.distance import align, byol, uniform
from tests.losses.ranks import hold_ranks_to_one, unit
from tests.two_ranks import Pool


def test_byol() -> None:
    p, z = unit(5, 4, 0) * 3, unit(5, 4, 1) * 0.2
    want = sum(float((a / a.norm() - b / b.norm()).square().sum()) for a, b in zip(p, z, strict=True)) / 5
    assert float(byol(p, z)) == pytest.approx(want)
    assert float(byol(p, p * 7)) == pytest.approx(0)
    assert float(byol(p, -p)) == pytest.approx(4)


def test_byol_does_not_feel_length() -> None:
    p, z = unit(5, 4, 0).requires_grad_(), unit(5, 4, 1)
    value = byol(p * 3, z * 5)
    torch.testing.assert_close(value, byol(p, z))
    gradient = torch.autograd.grad(value, p)[0]
    assert float((gradient * p).sum(1).abs().max().detach()) < 1e-12


@pytest.mark.parametrize("alpha", [1, 2, 3])
def test_align(alpha: float) -> None:
    x, y = unit(5, 4, 0), unit(5, 4, 1)
    want = sum(math.dist(a, b) ** alpha for a, b in zip(x.tolist(), y.tolist(), strict=True)) / 5
    assert float(align(x, y, alpha=alpha)) == pytest.approx(want)
    torch.testing.assert_close(align(y, x, alpha=alpha), align(x, y, alpha=alpha))


def test_align_on_the_sphere() -> None:
    x, y = unit(5, 4, 0).requires_grad_(), unit(5, 4, 1)
    torch.testing.assert_close(align(x, y), 2 - 2 * (x * y).sum(1).mean())
    torch.testing.assert_close(torch.autograd.grad(align(x, y), x)[0], 2 * (x - y) / 5)
    same = align(x, x.detach())
    assert float(same.detach()) == 0
    assert (torch.autograd.grad(same, x)[0] == 0).all()


def slow_uniform(x: Tensor, t: float) -> float:
    rows = x.tolist()
    terms = [math.exp(-t * math.dist(rows[i], rows[j]) ** 2) for i in range(len(rows)) for j in range(i)]
    return math.log(sum(terms) / len(terms))


@pytest.mark.parametrize("t", [0.5, 2, 10])
@pytest.mark.parametrize("n", [2, 3, 9])
def test_uniform(n: int, t: float) -> None:
    x = unit(n, 4, 0)
    assert float(uniform(x, t=t)) == pytest.approx(slow_uniform(x, t))


def test_uniform_gradient() -> None:
    raw = (unit(6, 3, 0) * 2).requires_grad_()
    value = uniform(normalize(raw))
    x = normalize(raw)
    i, j = torch.triu_indices(6, 6, 1)
    want = (-2 * (x[i] - x[j]).square().sum(1)).exp().mean().log()
    torch.testing.assert_close(value, want)
    torch.testing.assert_close(torch.autograd.grad(value, raw)[0], torch.autograd.grad(want, raw)[0])


def test_uniform_in_closed_form() -> None:
    equal = unit(1, 4, 0).repeat(5, 1)
    assert float(uniform(equal)) == pytest.approx(0)
    assert float(uniform(torch.tensor([[1.0, 0], [-1, 0]]), t=3)) == pytest.approx(-12)
    for n in (3, 6):
        simplex = normalize(torch.eye(n, dtype=torch.float64) - 1 / n)
        assert float(uniform(simplex)) == pytest.approx(-2 * 2 * n / (n - 1))


def test_uniform_does_not_feel_order_or_rotation_and_falls_with_t() -> None:
    x = unit(9, 4, 0)
    rotation = torch.linalg.qr(unit(4, 4, 2))[0]
    torch.testing.assert_close(uniform(x @ rotation), uniform(x))
    torch.testing.assert_close(uniform(x.flip(0)), uniform(x))
    values = [float(uniform(x, t=t)) for t in (0.1, 1, 2, 5)]
    assert values == sorted(values, reverse=True)
    distances = [math.dist(x[i].tolist(), x[j].tolist()) ** 2 for i in range(9) for j in range(i)]
    assert float(uniform(x, t=1e-6)) / 1e-6 == pytest.approx(-sum(distances) / len(distances), rel=1e-4)


def test_pairs_of_one_group_are_left_out() -> None:
    raw, group = unit(6, 4, 0).requires_grad_(), [7, 7, 2, MISSING, MISSING, 7]
    x = normalize(raw)
    apart = [(i, j) for i in range(6) for j in range(i) if group[i] != group[j] or group[i] == MISSING]
    terms = torch.stack([(-3 * (x[i] - x[j]).square().sum()).exp() for i, j in apart])
    want, got = terms.mean().log(), uniform(x, t=3, group=torch.tensor(group))
    torch.testing.assert_close(got, want)
    gradient = torch.autograd.grad(got, raw, retain_graph=True)[0]
    torch.testing.assert_close(gradient, torch.autograd.grad(want, raw)[0])
    torch.testing.assert_close(uniform(x, group=torch.full((6,), MISSING)), uniform(x))
    none = uniform(raw, group=torch.zeros(6, dtype=torch.int64))
    assert float(none.detach()) == 0
    assert (torch.autograd.grad(none, raw)[0] == 0).all()


def test_uniform_wants_pairs() -> None:
    with pytest.raises(ValueError, match="at least 2, not 1"):
        uniform(unit(1, 4, 0))


def _byol(p: Tensor, z: Tensor) -> Tensor:
    return byol(p, z)


def _align(x: Tensor, y: Tensor) -> Tensor:
    return align(normalize(x), normalize(y))


def _uniform(x: Tensor, y: Tensor) -> Tensor:
    return (uniform(normalize(x)) + uniform(normalize(y), t=3)) / 2


def _uniform_groups(x: Tensor, y: Tensor) -> Tensor:
    index = distributed.rank() * len(x) + torch.arange(len(x))
    group = torch.where(index % 4 == 3, MISSING, index % 3)
    return uniform(normalize(x), group=group) + uniform(normalize(y), group=torch.zeros_like(group))


@pytest.mark.parametrize("loss", [_byol, _align, _uniform, _uniform_groups])
def test_two_ranks(two_ranks: Pool, loss) -> None:  # type: ignore[no-untyped-def]
    hold_ranks_to_one(two_ranks, loss, unit(8, 4, 0), unit(8, 4, 1))
