from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.distributed import normalize
from nearfar.losses.leave_one_out import leave_one_out
from nearfar.losses.pairwise import info_nce
from tests.losses.ranks import hold_ranks_to_one, unit
from tests.two_ranks import Pool


def slow(q: Tensor, k: Tensor, others: list[Tensor], queue: Tensor, group: list[int], batch: bool) -> Tensor:
    losses = []
    for i in range(len(q)):
        negatives = [other[i] for other in others]
        if batch:
            free = [j for j in range(len(q)) if j != i and (group[i] < 0 or group[j] != group[i])]
            negatives += [other[j] for other in others for j in free]
        logits = torch.stack([q[i] @ key for key in (k[i], *negatives, *queue)]) / 0.2
        losses.append(F.cross_entropy(logits[None], torch.tensor([0])))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("n", [0, 1, 3])
def test_leave_one_out_is_that_of_a_loop(n: int, batch: bool) -> None:
    q, k, queue = unit(5, 4, 0).requires_grad_(), unit(5, 4, 1), unit(7, 4, 2)
    others = [unit(5, 4, 3 + number) for number in range(n)]
    for group in ([-1] * 5, [2, 2, -1, -1, 3]):
        groups = (torch.tensor(group), torch.full((7,), -1))
        got = leave_one_out(q, k, others, queue, temperature=0.2, groups=groups, batch=batch)
        want = slow(q, k, others, queue, group, batch)
        torch.testing.assert_close(got, want)
        torch.testing.assert_close(torch.autograd.grad(got, q)[0], torch.autograd.grad(want, q)[0])


def test_keys_of_the_group_in_the_queue_are_no_negatives() -> None:
    q, k, queue, others = unit(2, 4, 0), unit(2, 4, 1), unit(4, 4, 2), [unit(2, 4, 3)]
    groups = (torch.tensor([5, -1]), torch.tensor([5, -1, 6, 5]))
    got = leave_one_out(q, k, others, queue, temperature=0.2, groups=groups)
    first = slow(q[:1], k[:1], [others[0][:1]], queue[[1, 2]], [-1], False)
    second = slow(q[1:], k[1:], [others[0][1:]], queue, [-1], False)
    torch.testing.assert_close(got, (first + second) / 2)


def test_without_other_keys_it_is_info_nce() -> None:
    q, k, queue = unit(5, 4, 0), unit(5, 4, 1), unit(7, 4, 2)
    want = info_nce(q, k, queue, temperature=0.2)
    torch.testing.assert_close(leave_one_out(q, k, [], queue, temperature=0.2), want)


def test_equal_rows() -> None:
    z = unit(1, 4, 0).repeat(5, 1)
    for batch, count in ((False, 1 + 3 + 9), (True, 1 + 3 * 5 + 9)):
        got = leave_one_out(z, z, [z] * 3, z[:1].repeat(9, 1), temperature=0.1, batch=batch)
        assert float(got) == pytest.approx(math.log(count))


def _image(q: Tensor, k: Tensor) -> Tensor:
    q, k = normalize(q), normalize(k)
    return leave_one_out(q, k, [k.flip(1)], unit(9, 4, 9).to(q.dtype), temperature=0.2)


def _batch(q: Tensor, k: Tensor, group: Tensor) -> Tensor:
    q, k = normalize(q), normalize(k)
    groups = (group, torch.full((9,), -1))
    return leave_one_out(q, k, [k.flip(1)], unit(9, 4, 9).to(q.dtype), temperature=0.2, groups=groups, batch=True)


def test_two_ranks(two_ranks: Pool) -> None:
    hold_ranks_to_one(two_ranks, _image, unit(6, 4, 0), unit(6, 4, 1))
    hold_ranks_to_one(two_ranks, _batch, unit(6, 4, 0), unit(6, 4, 1), torch.tensor([1, 1, -1, 2, 1, 2]))
