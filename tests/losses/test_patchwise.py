from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import MISSING
from nearfar.losses.pairwise import info_nce_batch
from nearfar.losses.patchwise import info_nce_parts
from tests.losses.ranks import hold_ranks_to_one, unit
from tests.two_ranks import Pool


def slow(p: Tensor, z: Tensor, positive: list[int], parts: int, group: list[int]) -> float:
    losses, rows = [], len(p) // len(group)
    for i, row in enumerate(p):
        mine, total = i // rows, 0.0
        for j, other in enumerate(z):
            theirs = j // parts
            if mine == theirs or group[mine] != group[theirs] or group[mine] == MISSING:
                total += math.exp(float(row @ other))
        losses.append(math.log(total) - float(row @ z[positive[i]]))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("group", [[MISSING] * 4, [0, 1, 1, MISSING], [3, 3, 3, 3]])
def test_info_nce_parts(group: list[int]) -> None:
    p, z = 3 * unit(8, 4, 0), 2 * unit(12, 4, 1)  # 2 predictions and 3 parts of each of 4 samples
    positive = [1, 2, 4, 5, 7, 8, 10, 9]
    got = info_nce_parts(p, z, torch.tensor(positive), group=torch.tensor(group))
    assert float(got) == pytest.approx(slow(p, z, positive, 3, group))
    if max(group) == MISSING:
        assert float(info_nce_parts(p, z, torch.tensor(positive))) == pytest.approx(float(got))


def test_it_is_cross_entropy_over_all_parts() -> None:
    p, z = (3 * unit(6, 4, 0)).requires_grad_(), unit(9, 4, 1).requires_grad_()
    positive = torch.tensor([0, 2, 3, 5, 8, 7])
    got, want = info_nce_parts(p, z, positive), F.cross_entropy(p @ z.T, positive)
    torch.testing.assert_close(got, want)
    for a, b in zip(torch.autograd.grad(got, [p, z]), torch.autograd.grad(want, [p, z]), strict=True):
        torch.testing.assert_close(a, b)


def test_it_is_info_nce_of_one_part_a_sample() -> None:
    q, k = unit(6, 4, 0), unit(6, 4, 1)
    torch.testing.assert_close(info_nce_parts(q / 0.1, k, torch.arange(6)), info_nce_batch(q, k, temperature=0.1))


def test_equal_parts_give_the_logarithm_of_their_number_and_more_parts_never_less() -> None:
    z = unit(1, 4, 0).repeat(12, 1)
    assert float(info_nce_parts(z[:4], z, torch.arange(4))) == pytest.approx(math.log(12))
    p, z = unit(4, 4, 0), unit(12, 4, 1)
    few, many = (info_nce_parts(p, z[:n], torch.arange(4)) for n in (4, 12))
    assert 0 <= few <= many


def test_large_scores_stay_finite() -> None:
    p = (1000 * unit(4, 4, 0)).requires_grad_()
    value = info_nce_parts(p, unit(12, 4, 1), torch.arange(4))
    assert value.isfinite()
    assert torch.autograd.grad(value, p)[0].isfinite().all()


def _parts(p: Tensor, z: Tensor, group: Tensor) -> Tensor:
    """2 predictions and 3 parts of each sample."""
    n, d = p.shape
    rows = torch.stack([p, p.roll(1, 1)], 1).view(2 * n, d)
    parts = torch.stack([z, z.roll(1, 1), -z], 1).view(3 * n, d)
    positive = (3 * torch.arange(n)[:, None] + torch.tensor([1, 2])).flatten()
    return info_nce_parts(rows, parts, positive, group=group)


def test_two_ranks(two_ranks: Pool) -> None:
    hold_ranks_to_one(two_ranks, _parts, unit(8, 4, 0), unit(8, 4, 1), torch.tensor([0, 0, 1, -1, 1, -1, 2, 0]))
