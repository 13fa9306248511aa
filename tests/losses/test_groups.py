"""Samples of one group are not each other's negatives, in every pairwise loss."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.losses.groups import equal_ids, foreign, or_positive
from nearfar.losses.pairwise import dcl, info_nce, info_nce_batch, nt_xent
from nearfar.losses.supervised import supcon, supcon_in
from tests.losses.ranks import hold_ranks_to_one, unit
from tests.two_ranks import Pool

GROUPS = [
    [0, 0, 1, MISSING, MISSING, 1],
    [MISSING] * 6,
    [0] * 6,
    [5, 4, 3, 2, 1, 0],
    [7, 7, 7, MISSING, 2, 2],
]
LABEL = [0, 1, 1, 0, MISSING, 1]


def same(a: int, b: int) -> bool:
    return a == b and a != MISSING


def test_the_rules_pair_by_pair() -> None:
    mine, first, second, ids = [0, 1, MISSING, 2], [1, MISSING, 0, 2, 1], [2, 0, MISSING, 1, 1], [3, 3, 4, 0]
    of_columns = [3, 4, 0, 3, 5]
    rows, one, two = torch.tensor(mine), torch.tensor(first), torch.tensor(second)
    i, j = torch.arange(4)[:, None], torch.arange(5)[None]
    alike = [[same(a, b) for b in first] for a in mine]
    of_either = [[same(a, b) or same(a, c) for b, c in zip(first, second, strict=True)] for a in mine]
    positive = [[a == b for b in of_columns] for a in ids]
    assert equal_ids(rows[:, None], one).tolist() == alike
    assert foreign(rows, one)(i, j).tolist() == [[not hidden for hidden in row] for row in alike]
    rule = foreign(rows, one, two)
    assert rule(i, j).tolist() == [[not hidden for hidden in row] for row in of_either]
    kept = or_positive(rule, (torch.tensor(ids), torch.tensor(of_columns)))(i, j)
    assert kept.tolist() == [
        [not a or b for a, b in zip(*both, strict=True)] for both in zip(of_either, positive, strict=True)
    ]
    assert torch.equal(rule(i, j)[2:4, 1:3], rule(i[2:4], j[:, 1:3]))


def slow(z1: Tensor, z2: Tensor, group: list[int], tau: float, *, decoupled: bool = False) -> float:
    """NT-Xent, or DCL, whose rows without a negative take no part."""
    n, rows = len(z1), [*z1, *z2]
    losses = []
    for i, anchor in enumerate(rows):
        partner = (i + n) % (2 * n)
        kept = [j for j in range(2 * n) if j not in (i, partner) and not same(group[i % n], group[j % n])]
        kept += [] if decoupled else [partner]
        if kept:
            total = sum(math.exp(float(anchor @ rows[j]) / tau) for j in kept)
            losses.append(math.log(total) - float(anchor @ rows[partner]) / tau)
    return sum(losses) / max(len(losses), 1)


def slow_queue(q: Tensor, k: Tensor, queue: Tensor, group: list[int], of_queue: list[int], tau: float) -> float:
    losses = []
    for query, key, mine in zip(q, k, group, strict=True):
        kept = [row for row, other in zip(queue, of_queue, strict=True) if not same(mine, other)]
        total = sum(math.exp(float(query @ row) / tau) for row in [key, *kept])
        losses.append(math.log(total) - float(query @ key) / tau)
    return sum(losses) / len(losses)


def slow_supcon(views: list[Tensor], label: list[int], group: list[int], tau: float, *, inside: bool) -> float:
    rows = [(z, s) for view in views for s, z in enumerate(view)]
    losses = []
    for i, (anchor, s) in enumerate(rows):
        others = [j for j in range(len(rows)) if j != i]
        positive = [j for j in others if rows[j][1] == s or same(label[s], label[rows[j][1]])]
        total = sum(
            math.exp(float(anchor @ rows[j][0]) / tau)
            for j in others
            if j in positive or not same(group[s], group[rows[j][1]])
        )
        terms = [math.exp(float(anchor @ rows[j][0]) / tau) / total for j in positive]
        losses.append(-math.log(sum(terms) / len(terms)) if inside else -sum(map(math.log, terms)) / len(terms))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("group", GROUPS)
def test_against_slow_loops(group: list[int]) -> None:
    z1, z2, ids = unit(6, 4, 0), unit(6, 4, 1), torch.tensor(group)
    close = lambda want: pytest.approx(want, abs=1e-12)
    assert float(nt_xent(z1, z2, temperature=0.2, group=ids)) == close(slow(z1, z2, group, 0.2))
    assert float(dcl(z1, z2, temperature=0.2, group=ids)) == close(slow(z1, z2, group, 0.2, decoupled=True))
    queue, of_queue = unit(5, 4, 2), [0, 1, 7, MISSING, 2]
    got = info_nce(z1, z2, queue, temperature=0.2, groups=(ids, torch.tensor(of_queue)))
    assert float(got) == close(slow_queue(z1, z2, queue, group, of_queue, 0.2))
    for loss, inside in ((supcon, False), (supcon_in, True)):
        got = loss([z1, z2], torch.tensor(LABEL), temperature=0.2, group=ids)
        assert float(got) == close(slow_supcon([z1, z2], LABEL, group, 0.2, inside=inside))
    rows = [
        slow_queue(z1[i : i + 1], z2[i : i + 1], z2[torch.arange(6) != i], [group[i]], group[:i] + group[i + 1 :], 0.2)
        for i in range(6)
    ]
    assert float(info_nce_batch(z1, z2, temperature=0.2, group=ids)) == close(sum(rows) / 6)


def test_no_groups_change_nothing() -> None:
    z1, z2, none = unit(6, 4, 0), unit(6, 4, 1), torch.full((6,), MISSING)
    for loss in (nt_xent, dcl, info_nce_batch):
        torch.testing.assert_close(loss(z1, z2, temperature=0.1, group=none), loss(z1, z2, temperature=0.1))


def _group(z: Tensor) -> Tensor:
    from nearfar import distributed

    index = distributed.rank() * len(z) + torch.arange(len(z))
    return torch.where(index % 4 == 3, MISSING, index % 3)


def _nt_xent(z1: Tensor, z2: Tensor) -> Tensor:
    return nt_xent(z1, z2, temperature=0.2, group=_group(z1))


def _dcl(z1: Tensor, z2: Tensor) -> Tensor:
    return dcl(z1, z2, temperature=0.2, group=_group(z1))


def _info_nce_batch(z1: Tensor, z2: Tensor) -> Tensor:
    return info_nce_batch(z1, z2, temperature=0.2, group=_group(z1))


def _supcon(z1: Tensor, z2: Tensor) -> Tensor:
    return supcon([z1, z2], _group(z1).roll(1), temperature=0.2, group=_group(z1))


@pytest.mark.parametrize("loss", [_nt_xent, _dcl, _info_nce_batch, _supcon])
def test_two_ranks(two_ranks: Pool, loss: Callable[..., Tensor]) -> None:
    hold_ranks_to_one(two_ranks, loss, unit(8, 4, 0), unit(8, 4, 1))


def test_all_in_one_group_pull_and_do_not_push() -> None:
    z1, z2 = unit(6, 4, 0).requires_grad_(), unit(6, 4, 1).requires_grad_()
    for loss in (nt_xent, dcl, info_nce_batch):
        value = loss(z1, z2, temperature=0.1, group=torch.zeros(6, dtype=torch.int64))
        assert float(value.detach()) == pytest.approx(0, abs=1e-12)
        assert all(g.isfinite().all() for g in torch.autograd.grad(value, [z1, z2]))
