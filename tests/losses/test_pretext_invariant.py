from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.distributed import normalize
from nearfar.losses.pairwise import info_nce
from nearfar.losses.pretext_invariant import told_apart
from tests.losses.ranks import hold_ranks_to_one, unit
from tests.two_ranks import Pool


def slow(v: Tensor, own: Tensor, drawn: Tensor, tau: float, apart: list[list[bool]]) -> float:
    losses = []
    for i, row in enumerate(v):
        negatives = [math.exp(float(row @ x) / tau) for j, x in enumerate(drawn) if not apart[i][j]]
        if not negatives:
            losses.append(0.0)
            continue
        total, e = sum(negatives), math.exp(float(row @ own[i]) / tau)
        losses.append(-math.log(e / (e + total)) - sum(math.log(1 - n / (n + total)) for n in negatives))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("tau", [0.07, 0.5])
def test_told_apart(tau: float) -> None:
    v, own, drawn = unit(5, 4, 0), unit(5, 4, 1), unit(9, 4, 2)
    got = told_apart(v, own, drawn, temperature=tau)
    assert float(got) == pytest.approx(slow(v, own, drawn, tau, [[False] * 9] * 5))


def test_groups() -> None:
    v, own, drawn = unit(4, 4, 0), unit(4, 4, 1), unit(3, 4, 2)
    mine, theirs = [0, 1, MISSING, 2], [0, 0, MISSING]
    apart = [[a == b and a != MISSING for b in theirs] for a in mine]
    groups = torch.tensor(mine), torch.tensor(theirs)
    got = told_apart(v, own, drawn, temperature=0.2, groups=groups)
    assert float(got) == pytest.approx(slow(v, own, drawn, 0.2, apart))
    alone = torch.tensor([0, 0, 0, 0]), torch.tensor([0, 0, 0])
    v = v.requires_grad_()
    none = told_apart(v, own, drawn, temperature=0.2, groups=alone)
    assert float(none.detach()) == 0
    assert (torch.autograd.grad(none, v)[0] == 0).all()


def test_hidden_rows_are_no_negatives() -> None:
    v, own, drawn = unit(4, 4, 0), unit(4, 4, 1), unit(3, 4, 2)
    hidden = torch.tensor([[False, True, False], [False] * 3, [True, True, False], [True] * 3])
    got = told_apart(v, own, drawn, temperature=0.2, hidden=hidden)
    assert float(got) == pytest.approx(slow(v, own, drawn, 0.2, hidden.tolist()))


def test_equal_rows() -> None:
    z = unit(1, 4, 0).repeat(20, 1)
    got = told_apart(z[:5], z[:5], z, temperature=0.07)
    assert float(got) == pytest.approx(math.log(21) + 20 * math.log(21 / 20))


def test_the_second_term_is_between_log_2_and_1() -> None:
    for seed in range(5):
        v, own, drawn = unit(6, 4, seed), unit(6, 4, 10 + seed), unit(50, 4, 20 + seed)
        for tau in (0.01, 0.1, 10.0):
            rest = told_apart(v, own, drawn, temperature=tau) - info_nce(v, own, drawn, temperature=tau)
            assert math.log(2) - 1e-9 <= float(rest) <= 1 + 1e-9


def test_half_precision_and_small_temperatures_stay_finite() -> None:
    v = unit(5, 4, 0).to(torch.bfloat16).requires_grad_()
    value = told_apart(normalize(v), unit(5, 4, 1).float(), unit(9, 4, 2).float(), temperature=0.005)
    assert value.isfinite()
    assert torch.autograd.grad(value, v)[0].isfinite().all()


def _told_apart(v: Tensor, own: Tensor, group: Tensor) -> Tensor:
    drawn = unit(20, 4, 9).to(v.dtype)
    return told_apart(normalize(v), normalize(own), drawn, temperature=0.2, groups=(group, torch.arange(20) % 7))


def test_two_ranks(two_ranks: Pool) -> None:
    hold_ranks_to_one(two_ranks, _told_apart, unit(8, 4, 0), unit(8, 4, 1), torch.arange(8) % 5 - 1)
