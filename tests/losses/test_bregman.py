from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nearfar.losses.bregman import bregman, divergences
from tests.losses.ranks import hold_ranks_to_one
from tests.two_ranks import Pool


def functionals(n: int = 5, k: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow(f1: Tensor, f2: Tensor, temperature: float, sigma: float, group: list[int]) -> Tensor:
    rows, n = [*f1, *f2], len(f1)

    def psi(i: int, j: int) -> Tensor:
        divergence = rows[i].max() - rows[i][int(rows[j].argmax())]
        return (-divergence / (2 * sigma**2)).exp()

    losses = []
    for i in range(2 * n):
        sibling = (i + n) % (2 * n)
        alone = group[i % n] < 0
        others = [j for j in range(2 * n) if j not in (i, sibling) and (alone or group[j % n] != group[i % n])]
        below = sum((psi(i, j) / temperature).exp() for j in (sibling, *others))
        losses.append(-((psi(i, sibling) / temperature).exp() / below).log())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("k", [1, 3, 20])
@pytest.mark.parametrize("group", [None, [-1] * 5, [2, 2, -1, -1, 3]])
def test_bregman_is_that_of_a_loop_over_pairs(group: list[int] | None, k: int) -> None:
    f1, f2 = functionals(k=k).requires_grad_(), functionals(k=k, seed=1).requires_grad_()
    known = None if group is None else torch.tensor(group)
    got = bregman(f1, f2, temperature=0.3, sigma=0.7, group=known)
    want = slow(f1, f2, 0.3, 0.7, group or [-1] * 5)
    torch.testing.assert_close(got, want)
    for a, b in zip(torch.autograd.grad(got, [f1, f2]), torch.autograd.grad(want, [f1, f2]), strict=True):
        torch.testing.assert_close(a, b)


def test_divergences_are_0_within_a_kind_and_do_not_feel_what_all_say_more() -> None:
    f = functionals(8, 4)
    d = divergences(f)
    assert (d >= 0).all()
    assert (d.gather(1, f.argmax(1)[:, None]) == 0).all()
    torch.testing.assert_close(divergences(f + functionals(8, 1, seed=2)), d)


@pytest.mark.parametrize("k", [1, 4])
def test_rows_of_one_kind_have_the_loss_of_chance_and_no_gradient(k: int) -> None:
    f1, f2 = functionals(k=k), functionals(k=k, seed=1)
    f1[:, 0] += 10
    f2[:, 0] += 10
    value = bregman(f1.requires_grad_(), f2, temperature=0.5)
    assert value.item() == pytest.approx(math.log(9))
    assert not torch.autograd.grad(value, f1)[0].abs().max() > 1e-12


def test_wide_and_narrow_scales() -> None:
    f1, f2 = functionals(), functionals(seed=1)
    assert bregman(f1, f2, temperature=0.5, sigma=1e6).item() == pytest.approx(math.log(9))
    narrow, kinds = bregman(f1, f2, temperature=0.5, sigma=1e-3), torch.cat([f1, f2]).argmax(1)
    losses = []
    for i in range(10):
        same = [2.0 * bool(kinds[i] == kinds[j]) for j in range(10)]
        losses.append(-same[(i + 5) % 10] + math.log(sum(math.exp(same[j]) for j in range(10) if j != i)))
    assert narrow.item() == pytest.approx(sum(losses) / 10)


def test_it_does_not_feel_which_view_is_first_and_has_a_floor() -> None:
    f1, f2 = functionals(), functionals(seed=1)
    torch.testing.assert_close(bregman(f1, f2, temperature=0.5), bregman(f2, f1, temperature=0.5))
    floor = math.log(1 + 8 * math.exp(-1 / 0.5))
    best = 100 * torch.eye(5, dtype=torch.float64)
    assert bregman(best, best, temperature=0.5).item() == pytest.approx(floor)
    assert bregman(f1, f2, temperature=0.5) > floor


def _bregman(f1: Tensor, f2: Tensor) -> Tensor:
    return bregman(f1, f2, temperature=0.3)


def _bregman_in_groups(f1: Tensor, f2: Tensor, group: Tensor) -> Tensor:
    return bregman(f1, f2, temperature=0.3, group=group)


def test_two_ranks(two_ranks: Pool) -> None:
    rows = functionals(6, 4), functionals(6, 4, seed=1)
    hold_ranks_to_one(two_ranks, _bregman, *rows)
    hold_ranks_to_one(two_ranks, _bregman_in_groups, *rows, torch.tensor([1, 1, -1, -1, 1, 2]))
