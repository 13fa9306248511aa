from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import MISSING
from nearfar.distributed import gather, local
from nearfar.losses.instances import instance_softmax, log_partition, nce
from nearfar.losses.pairwise import info_nce
from tests.losses.ranks import hold_ranks_to_one, unit
from tests.two_ranks import Pool

N = 30  # samples in the bank
LOG_Z = torch.tensor(2.3, dtype=torch.float64)


def slow_nce(v: Tensor, own: Tensor, drawn: Tensor, temperature: float, z: float, samples: int) -> float:
    noise = len(drawn) / samples
    losses = []
    for i, row in enumerate(v):
        p = math.exp(float(row @ own[i]) / temperature) / z
        loss = -math.log(p / (p + noise))
        for other in drawn:
            q = math.exp(float(row @ other) / temperature) / z
            loss -= math.log(noise / (q + noise))
        losses.append(loss)
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
@pytest.mark.parametrize("drawn", [1, 12])
def test_nce(drawn: int, temperature: float) -> None:
    v, own, others = unit(5, 4, 0), unit(5, 4, 1), unit(drawn, 4, 2)
    got = nce(v, own, others, temperature=temperature, log_z=LOG_Z, samples=N)
    assert float(got) == pytest.approx(slow_nce(v, own, others, temperature, math.exp(2.3), N))


def test_nce_is_a_sum_over_what_is_drawn_and_no_mean() -> None:
    v, own, drawn = unit(5, 4, 0), unit(5, 4, 1), unit(6, 4, 2)
    far_off = torch.tensor(1e4, dtype=torch.float64)  # nothing seems likely, so that K in the noise is all that counts
    one = nce(v, own, drawn, temperature=0.5, log_z=-far_off, samples=N)
    two = nce(v, own, drawn.repeat(2, 1), temperature=0.5, log_z=-far_off, samples=N)
    assert float(two / one) == pytest.approx(2, rel=1e-3)


def test_nce_vanishes_only_where_own_rows_are_likely_and_others_are_not() -> None:
    v = torch.eye(4, dtype=torch.float64)
    log_z = torch.tensor(8.0, dtype=torch.float64)
    assert float(nce(v[:1], v[:1], v[1:], temperature=0.05, log_z=log_z, samples=4)) < 1e-2
    assert float(nce(v[:1], v[1:2], v[1:], temperature=0.05, log_z=log_z, samples=4)) > 5
    assert float(nce(v[:1], v[:1], v[:3], temperature=0.05, log_z=log_z, samples=4)) > 5  # its own row is drawn too


def test_log_partition_is_n_times_the_mean_of_all_exponentials() -> None:
    v, own, drawn = unit(5, 4, 0), unit(5, 4, 1), unit(7, 4, 2)
    mean = sum(math.exp(float(v[i] @ x) / 0.2) for i in range(5) for x in [own[i], *drawn]) / (5 * 8)
    assert float(log_partition(v, own, drawn, temperature=0.2, samples=N)) == pytest.approx(math.log(N * mean))


def test_softmax_is_the_cross_entropy_of_a_cosine_classifier() -> None:
    v, bank, index = unit(5, 4, 0).requires_grad_(), unit(N, 4, 1), torch.tensor([3, 0, 29, 7, 3])
    want = F.cross_entropy(v @ bank.T / 0.1, index)
    got = instance_softmax(v, bank, index, temperature=0.1)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got, v)[0], torch.autograd.grad(want, v)[0])
    equal = unit(1, 4, 0)
    same = instance_softmax(equal.repeat(5, 1), equal.repeat(N, 1), index, temperature=0.1)
    assert float(same) == pytest.approx(math.log(N))


def test_info_nce_of_all_rows_with_the_own_one_once_is_the_softmax() -> None:
    v, bank = unit(1, 4, 0), unit(N, 4, 1)
    rest = torch.cat([bank[:3], bank[4:]])
    want = instance_softmax(v, bank, torch.tensor([3]), temperature=0.1)
    torch.testing.assert_close(info_nce(v, bank[3:4], rest, temperature=0.1), want)


def test_rows_of_one_group_are_no_negatives() -> None:
    v, bank, index = unit(4, 4, 0).requires_grad_(), unit(8, 4, 1), torch.arange(4)
    of_bank = torch.tensor([0, 0, 1, MISSING, MISSING, 1, 0, 2])
    groups = of_bank[:4], of_bank
    terms = []
    softmax = []
    for i in range(4):
        kept = [j for j in range(8) if of_bank[i] == MISSING or of_bank[j] != of_bank[i]]
        one = v[i : i + 1].detach()
        terms.append(slow_nce(one, bank[i : i + 1], bank[kept], 0.2, math.exp(2.3) * 8 / len(kept), N))
        logits = torch.cat([one @ bank[i : i + 1].T, one @ bank[[j for j in kept if j != i]].T], 1) / 0.2
        softmax.append(float(F.cross_entropy(logits, torch.tensor([0]))))
    got = instance_softmax(v, bank, index, temperature=0.2, groups=groups)
    assert float(got.detach()) == pytest.approx(sum(softmax) / 4)
    loss = nce(v, bank[:4], bank, temperature=0.2, log_z=LOG_Z, samples=N, groups=groups)
    assert torch.autograd.grad(loss, v)[0].isfinite().all()
    # K stays what was drawn, so the slow form, which has K = len(kept), gets a Z that makes up for it.
    assert float(loss.detach()) == pytest.approx(sum(terms) / 4)


def test_half_precision_and_unlikely_rows_stay_finite() -> None:
    v = unit(6, 8, 0).to(torch.bfloat16).requires_grad_()
    bank = unit(20, 8, 1).float()
    for log_z in (-100.0, 100.0):
        loss = nce(v.float(), bank[:6], bank, temperature=0.01, log_z=torch.tensor(log_z), samples=20)
        assert loss.isfinite()
        assert torch.autograd.grad(loss, v)[0].isfinite().all()


def _bank(x: Tensor) -> Tensor:
    return unit(N, 4, 9).to(x.dtype)


def _index(x: Tensor) -> Tensor:
    return local(torch.arange(len(gather(x.detach()))))


def _nce(v: Tensor, own: Tensor) -> Tensor:
    bank = _bank(v)
    log_z = log_partition(F.normalize(v), bank[_index(v)], bank, temperature=0.2, samples=N)
    return nce(F.normalize(v), bank[_index(v)], bank, temperature=0.2, log_z=log_z, samples=N) + 0 * own.sum()


def _softmax(v: Tensor, own: Tensor) -> Tensor:
    groups = _index(v) % 3, torch.arange(N) % 3
    return instance_softmax(F.normalize(v), _bank(v), _index(v), temperature=0.2, groups=groups) + 0 * own.sum()


@pytest.mark.parametrize("loss", [_nce, _softmax])
def test_two_ranks(two_ranks: Pool, loss) -> None:  # type: ignore[no-untyped-def]
    hold_ranks_to_one(two_ranks, loss, unit(8, 4, 0), unit(8, 4, 1))
