from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.distributed import local, normalize
from nearfar.memory.bank import Bank
from tests.two_ranks import Pool


def test_rows_are_blended_put_back_on_the_sphere_and_others_stay() -> None:
    bank, index, v = Bank(10, 4), torch.tensor([7, 2, 5]), normalize(torch.randn(3, 4))
    before = bank.rows.clone()
    torch.testing.assert_close(before.norm(dim=1), torch.ones(10))
    bank.write(index, v, keep=0.3)
    for row in range(10):
        want = before[row]
        if row in index:
            want = 0.3 * want + 0.7 * v[index == row][0]
            want = want / want.norm()
        torch.testing.assert_close(bank.rows[row], want)
    assert bank.seen.nonzero()[:, 0].tolist() == [2, 5, 7]
    assert not bank.rows.requires_grad


def test_without_keeping_a_row_is_what_came_last() -> None:
    bank, v = Bank(4, 3), normalize(torch.randn(2, 3, requires_grad=True))
    bank.write(torch.tensor([1, 0]), v)
    torch.testing.assert_close(bank.rows[[1, 0]], v.detach())


def test_groups_are_kept_of_what_was_written() -> None:
    bank, v = Bank(5, 3), normalize(torch.randn(2, 3))
    bank.write(torch.tensor([1, 0]), v)
    assert bank.group.tolist() == [MISSING] * 5
    bank.write(torch.tensor([3, 0]), v, group=torch.tensor([7, MISSING]))
    assert bank.group.tolist() == [MISSING, MISSING, MISSING, 7, MISSING]


def _written(index: Tensor, v: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(0)
    bank = Bank(10, 4)
    bank.write(local(index), local(v), keep=0.5, group=local(index) % 3)
    return dict(bank.state_dict())


def test_two_ranks_hold_what_one_holds(two_ranks: Pool) -> None:
    index, v = torch.tensor([1, 9, 3, 4]), normalize(torch.randn(4, 4))
    want = _written(index, v)
    for got in two_ranks.run(_written, index, v):
        torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_drift_compares_what_samples_give_with_what_was_held_of_them() -> None:
    bank, axes = Bank(6, 3), torch.eye(3)
    assert bank.drift() is None
    bank.write(torch.tensor([0, 1]), axes[:2])
    assert bank.drift() is None  # what it starts with was never an encoder's
    bank.write(torch.tensor([0, 2]), axes[:2])
    assert bank.drift() == pytest.approx(0)  # of sample 0; sample 2 is new
    bank.write(torch.tensor([0, 1, 2]), 7 * axes[[1, 1, 1]])
    assert bank.drift() == pytest.approx((1 + 0 + 0) / 3, abs=1e-6)
    assert "moved" not in bank.state_dict()
