"""The pool of workers, and the collectives it is for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nearfar import distributed
from tests.two_ranks import Pool


def _who(x: int) -> tuple[int, int, int]:
    return distributed.rank(), distributed.world(), torch.get_num_threads() + x


def _fail_on_one() -> None:
    if distributed.rank() == 1:
        raise KeyError("one rank only")


def _collectives() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x = (torch.arange(2.0) + 10 * distributed.rank()).requires_grad_()
    weights = torch.arange(4.0) + distributed.rank()
    (gradient,) = torch.autograd.grad((distributed.gather(x) * weights).sum(), x)
    kept = distributed.share(x, keep=x > 0.5)
    return gradient, kept.detach(), distributed.highest(x.sin()), distributed.total(x).detach()


def test_both_ranks_answer(two_ranks: Pool) -> None:
    assert two_ranks.run(_who, 3) == [(0, 2, 4), (1, 2, 4)]


def test_a_failure_comes_back_and_the_pool_lives_on(two_ranks: Pool) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)_fail_on_one failed.*rank 1.*one rank only"):
        two_ranks.run(_fail_on_one)
    assert two_ranks.run(_who, 0) == [(0, 2, 1), (1, 2, 1)]


def test_collectives(two_ranks: Pool) -> None:
    first, second = two_ranks.run(_collectives)
    # Each row feels the weights of both ranks: column c weighs c on rank 0 and c + 1 on rank 1.
    assert first[0].tolist() == [1, 3]
    assert second[0].tolist() == [5, 7]
    assert float(first[1] + second[1]) / 2 == pytest.approx((1 + 10 + 11) / 3)
    top = torch.maximum(torch.arange(2.0).sin(), (10 + torch.arange(2.0)).sin())
    for answer in (first, second):
        torch.testing.assert_close(answer[2], top)
        assert answer[3].tolist() == [10, 12]
