from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nearfar.losses.instances import instance_softmax
from nearfar.losses.unified import unified
from tests.losses.ranks import hold_ranks_to_one, unit
from tests.two_ranks import Pool

COLUMN = torch.tensor([4, 1, 4, 0, 1, 6])
SOURCE = torch.tensor([True, False, True, False, False, False])


def means(rows: Tensor, label: list[int]) -> Tensor:
    """The mean of the rows of each label, in order."""
    return torch.stack([rows[[i for i, own in enumerate(label) if own == name]].mean(0) for name in sorted(set(label))])


def slow(f: Tensor, c: Tensor, column: list[int], rows: list[int], left_out: set[tuple[int, int]]) -> float:
    losses = []
    for i in rows:
        logit = {l: float(f[i] @ c[l]) / 0.2 for l in range(len(c)) if (i, l) not in left_out}
        losses.append(math.log(sum(map(math.exp, logit.values()))) - logit[column[i]])
    return sum(losses) / len(losses)


def test_against_a_slow_loop() -> None:
    f, c = unit(6, 4, 0), means(unit(9, 4, 1), [0, 1, 2, 3, 4, 5, 6, 6, 0])
    got = unified(f, c, COLUMN, temperature=0.2)
    assert float(got) == pytest.approx(slow(f, c, COLUMN.tolist(), list(range(6)), set()), abs=1e-12)
    got = unified(f, c, COLUMN, temperature=0.2, source=SOURCE)
    want = [slow(f, c, COLUMN.tolist(), rows, set()) for rows in ([0, 2], [1, 3, 4, 5])]
    assert float(got) == pytest.approx(sum(want), abs=1e-12)
    rows, columns = torch.tensor([3, -1, 2, 3, 3, 2]), torch.tensor([3, 3, -1, 2, 3, -1, 2])
    got = unified(f, c, COLUMN, temperature=0.2, groups=(rows, columns))
    left_out = {(i, l) for i in range(6) for l in range(7) if rows[i] == columns[l] and rows[i] >= 0 and l != COLUMN[i]}
    assert len(left_out) == 9
    assert float(got) == pytest.approx(slow(f, c, COLUMN.tolist(), list(range(6)), left_out), abs=1e-12)


def test_every_row_its_own_label_is_instance_discrimination() -> None:
    f, bank = unit(6, 4, 0).requires_grad_(), unit(7, 4, 1)
    got, want = unified(f, bank, COLUMN, temperature=0.1), instance_softmax(f, bank, COLUMN, temperature=0.1)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got, f), torch.autograd.grad(want, f))


def test_one_prototype_teaches_nothing_and_equal_ones_are_chance() -> None:
    f, one = unit(6, 4, 0).requires_grad_(), unit(1, 4, 1)
    loss = unified(f, one, torch.zeros(6, dtype=torch.long), temperature=0.05)
    assert loss.item() == 0
    assert torch.autograd.grad(loss, f)[0].abs().max() == 0
    equal = unified(f, one.repeat(7, 1), COLUMN, temperature=0.05, source=SOURCE)
    assert equal.item() == pytest.approx(2 * math.log(7))


def test_a_domain_without_rows_adds_nothing() -> None:
    f, c = unit(6, 4, 0), unit(7, 4, 1)
    plain = unified(f, c, COLUMN, temperature=0.1)
    for whole in (True, False):
        torch.testing.assert_close(unified(f, c, COLUMN, temperature=0.1, source=torch.full((6,), whole)), plain)


def test_a_looser_cluster_pushes_less() -> None:
    f = torch.tensor([[1.0, 0.0]])
    spread = torch.tensor([1.0, 0.6, 0.1])
    losses = [float(unified(f, torch.tensor([[0.5, 0], [r, 0]]), torch.tensor([0]), temperature=0.5)) for r in spread]
    assert losses == sorted(losses, reverse=True)


def _domains(f: Tensor, column: Tensor, source: Tensor, group: Tensor) -> Tensor:
    groups = group, torch.tensor([0, 1, -1, 2, 0, 1, 1])
    return unified(f, unit(7, 4, 1).to(f.dtype), column, temperature=0.2, source=source > 0, groups=groups)


def test_two_ranks(two_ranks: Pool) -> None:
    """One rank has a single row of the source, the other three."""
    column, source = torch.arange(8) % 7, torch.tensor([0, 0, 1, 0, 1, 1, 0, 1])
    hold_ranks_to_one(two_ranks, _domains, unit(8, 4, 0), column, source, torch.arange(8) % 3 - 1)
