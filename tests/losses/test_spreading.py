from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nearfar.distributed import normalize
from nearfar.losses.spreading import spreading
from tests.losses.ranks import hold_ranks_to_one, unit
from tests.two_ranks import Pool


def slow(z1: Tensor, z2: Tensor, temperature: float, weight: float, group: list[int], below_by: float = 1) -> Tensor:
    rows, n = torch.cat([z1, z2]), len(z1)
    losses = []
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        same = [j for j in range(2 * n) if group[i % n] >= 0 and group[i % n] == group[j % n]]
        others = [j for j in range(2 * n) if j not in (i, partner, *same)]
        s = {j: rows[i] @ rows[j].detach() / temperature for j in (partner, *others)}
        below = s[partner].exp() + below_by * sum(s[j].exp() for j in others)
        loss = -(s[partner].exp() / below).log()
        for j in others:
            loss = loss - weight * (1 - s[j].exp() / below).log()
        losses.append(loss)
    return torch.stack(losses).mean()


@pytest.mark.parametrize("group", [[-1] * 5, [3, 3, -1, -1, 4]])
@pytest.mark.parametrize("weight", [0.0, 1.0, 0.3])
def test_spreading_is_that_of_a_loop_and_its_gradient_one_sided(weight: float, group: list[int]) -> None:
    z1, z2 = unit(5, 4, 0).requires_grad_(), unit(5, 4, 1).requires_grad_()
    got = spreading(z1, z2, temperature=0.3, weight=weight, group=torch.tensor(group))
    want = slow(z1, z2, 0.3, weight, group)
    torch.testing.assert_close(got, want)
    for a, b in zip(torch.autograd.grad(got, [z1, z2]), torch.autograd.grad(want, [z1, z2]), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("group", [[-1] * 5, [3, 3, -1, -1, 4]])
@pytest.mark.parametrize("weight", [1.0, 1.7])
def test_released_code_weighs_the_denominator_too(weight: float, group: list[int]) -> None:
    z1, z2, ids = unit(5, 4, 0), unit(5, 4, 1), torch.tensor(group)
    got = spreading(z1, z2, temperature=0.9, weight=weight, weight_below=True, group=ids)
    torch.testing.assert_close(got, slow(z1, z2, 0.9, weight, group, weight))
    plain = spreading(z1, z2, temperature=0.9, weight=weight, group=ids)
    assert torch.equal(got, plain) == (weight == 1)


def test_spreading_of_equal_rows() -> None:
    z = unit(1, 4, 0).repeat(6, 1)
    want = math.log(11) - 10 * math.log(10 / 11)
    assert float(spreading(z, z, temperature=0.1)) == pytest.approx(want)


def test_it_stays_finite_where_a_negative_is_nearest() -> None:
    z1 = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    z2 = torch.tensor([[-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    value = spreading(z1, z2, temperature=0.02)
    assert value.isfinite()
    assert torch.autograd.grad(value, z1)[0].isfinite().all()


def _spreading(z1: Tensor, z2: Tensor) -> Tensor:
    return spreading(normalize(z1), normalize(z2), temperature=0.3)


def _spreading_in_groups(z1: Tensor, z2: Tensor, group: Tensor) -> Tensor:
    return spreading(normalize(z1), normalize(z2), temperature=0.3, group=group)


def test_two_ranks(two_ranks: Pool) -> None:
    hold_ranks_to_one(two_ranks, _spreading, unit(6, 4, 0), unit(6, 4, 1))
    groups = torch.tensor([1, 1, -1, -1, 1, 2])
    hold_ranks_to_one(two_ranks, _spreading_in_groups, unit(6, 4, 0), unit(6, 4, 1), groups)
