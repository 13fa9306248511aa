from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nearfar.batch import MISSING, Batch
from nearfar.errors import UserError
from nearfar.losses.support import support_weights
from nearfar.memory.support import Support
from tests.losses.ranks import unit


def batch(index: list[int], group: list[int] | None = None) -> Batch:
    label = torch.full((len(index),), MISSING)
    return Batch([], torch.tensor(index), label, None if group is None else torch.tensor(group))


def rows(n: int, seed: int) -> tuple[Tensor, Tensor]:
    return unit(n, 5, seed), unit(n, 5, seed + 100).requires_grad_()


def test_without_a_bank_the_batch_is_mixed_rows_or_maps() -> None:
    t, v = rows(4, 0)
    support, given = Support(5, "hybrid", 0.3), batch([0, 1, 2, 3])
    read, weight = support(t, v, given)
    want = support_weights(t, v, mode="hybrid", temperature=0.3, own=torch.arange(4))
    torch.testing.assert_close(weight, want.detach())
    torch.testing.assert_close(read, (want @ v)[:, None])
    assert not weight.requires_grad
    maps = torch.arange(24.0, dtype=v.dtype).view(4, 3, 2)
    torch.testing.assert_close(support(t, v, given, maps)[0], torch.einsum("ij,jmc->imc", want, maps))
    support.keep(v, given.index, None)
    assert not support.state_dict()


def test_the_bank_holds_the_newest_rows_as_constants_and_a_sample_does_not_read_its_own_past() -> None:
    support = Support(5, "cross", 0.3, 8)
    bank = support.bank
    assert bank is not None
    first, second = batch([0, 1, 2, 3, 4, 5], [0, MISSING, 7, MISSING, MISSING, 7]), batch([1, 8, 9], [7, 0, MISSING])
    t, v = rows(6, 0)
    assert support(t, v, first)[1].shape == (6, 6)  # nothing was put in yet, and what a queue begins with is noise
    support.keep(v, first.index, first.group)
    t, later = rows(3, 1)
    read, weight = support(t, later, second)
    hidden = [[0, 0], [0, 3 + 1], [0, 3 + 2], [0, 3 + 5], [1, 1], [1, 3 + 0], [2, 2]]
    assert (weight == 0).nonzero().tolist() == hidden
    torch.testing.assert_close(weight.sum(1), torch.ones(3, dtype=weight.dtype))
    torch.testing.assert_close(read[:, 0], weight @ torch.cat([later, v.float()]), rtol=1e-5, atol=1e-6)
    read.square().sum().backward()
    assert later.grad is not None
    assert v.grad is None
    support.keep(later, second.index, second.group)
    assert bank.label.tolist() == [9, 1, 2, 3, 4, 5, 1, 8]
    torch.testing.assert_close(bank.keys[0], later[2].detach().float())


def test_a_bank_without_use_is_refused() -> None:
    with pytest.raises(UserError, match="bank of 8"):
        Support(5, "identity", 0.3, 8)
