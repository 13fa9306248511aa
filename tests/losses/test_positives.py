from __future__ import annotations

import math
from collections import Counter
from itertools import combinations

import pytest
import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.distributed import local
from nearfar.losses.pairwise import info_nce
from nearfar.losses.positives import chosen, info_nce_chosen
from tests.losses.ranks import hold_ranks_to_one, unit
from tests.two_ranks import Pool

LABEL = torch.tensor([0, 1, MISSING, 3, 2])
OF_QUEUE = torch.tensor([0, 1, 0, MISSING, 0, 2, 1, 0, MISSING, 0, 2])
GROUP = torch.tensor([0, MISSING, 1, 2, 0])
GROUP_OF_QUEUE = torch.tensor([0, 0, MISSING, 1, 0, 2, MISSING, 1, 0, 2, 0])


def uniform(n: int, count: int, seed: int = 0) -> Tensor:
    return torch.rand(n, count, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", [0, 1, 3, 20])
@pytest.mark.parametrize("drawn", [False, True])
def test_chosen_keys_are_of_the_class_without_repeats(count: int, drawn: bool) -> None:
    for seed in range(20 if drawn else 1):
        columns = chosen(LABEL, OF_QUEUE, count, uniform(5, count, seed) if drawn else None)
        assert columns.shape == (5, count)
        for label, row in zip(LABEL.tolist(), columns.tolist(), strict=True):
            kept = [j for j in row if j >= 0]
            same = [j for j, other in enumerate(OF_QUEUE.tolist()) if other == label and label >= 0]
            assert len(kept) == len(set(kept)) == min(count, len(same))
            assert set(kept) <= set(same)
            if not drawn:
                assert kept == same[:count]


def test_every_set_is_as_likely() -> None:
    n = 20_000
    columns = chosen(torch.zeros(n, dtype=torch.long), OF_QUEUE, 3, uniform(n, 3))
    found = Counter(tuple(sorted(row)) for row in columns.tolist())
    assert set(found) == set(combinations([0, 2, 4, 7, 9], 3))
    assert all(abs(count - n / 10) < 5 * math.sqrt(n / 10) for count in found.values())


def test_draws_next_to_one_do_not_leave_the_class() -> None:
    of_queue = torch.zeros(65536, dtype=torch.long)
    draws = torch.full((2, 2), 1 - 2**-24)
    columns = chosen(torch.zeros(2, dtype=torch.long), of_queue, 2, draws)
    assert columns.tolist() == [[65534, 65535]] * 2


def slow(
    q: Tensor, k: Tensor, queue: Tensor, columns: Tensor, temperature: float, constant: bool, grouped: bool
) -> float:
    terms = []
    for i in range(len(q)):
        positive = [j for j in columns[i].tolist() if j >= 0]
        own = float(q[i] @ k[i]) / temperature
        s = [float(q[i] @ u) / temperature for u in queue]
        below = math.exp(own)
        for j in range(len(queue)):
            same = LABEL[i] >= 0 and LABEL[i] == OF_QUEUE[j]
            if j not in positive and constant and same:
                below += 1
            elif j in positive or not (grouped and GROUP[i] >= 0 and GROUP[i] == GROUP_OF_QUEUE[j]):
                below += math.exp(s[j])
        terms.append(math.log(below) - (own + sum(s[j] for j in positive)) / (1 + len(positive)))
        if not grouped and not constant:
            assert terms[-1] >= math.log(1 + len(positive)) - 1e-12
    return sum(terms) / len(terms)


@pytest.mark.parametrize("count", [0, 2, 6])
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
def test_the_loss_is_that_of_a_loop(count: int, constant: bool, grouped: bool) -> None:
    q, k, queue = unit(5, 4, 0), unit(5, 4, 1), unit(11, 4, 2)
    columns = chosen(LABEL, OF_QUEUE, count, uniform(5, count))
    groups = (GROUP, GROUP_OF_QUEUE) if grouped else None
    got = info_nce_chosen(q, k, queue, columns, (LABEL, OF_QUEUE), temperature=0.2, constant=constant, groups=groups)
    assert float(got) == pytest.approx(slow(q, k, queue, columns, 0.2, constant, grouped), rel=1e-12)


def test_without_positives_it_is_info_nce_and_with_all_it_is_supcon_over_key_and_queue() -> None:
    q, k, queue = unit(5, 4, 0), unit(5, 4, 1), unit(11, 4, 2)
    ids = LABEL, OF_QUEUE
    want = info_nce(q, k, queue, temperature=0.1)
    torch.testing.assert_close(info_nce_chosen(q, k, queue, chosen(*ids, 0), ids, temperature=0.1), want)
    nobody = torch.full_like(OF_QUEUE, MISSING)
    alone = info_nce_chosen(q, k, queue, chosen(LABEL, nobody, 6), (LABEL, nobody), temperature=0.1)
    torch.testing.assert_close(alone, want)
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], 1) / 0.1
    positive = torch.cat([torch.ones(5, 1), (LABEL[:, None] == OF_QUEUE) & (LABEL[:, None] >= 0)], 1)
    supcon = -(logits.log_softmax(1) * positive).sum(1) / positive.sum(1)
    for draws in (None, uniform(5, 9)):
        for constant in (False, True):
            got = info_nce_chosen(q, k, queue, chosen(*ids, 9, draws), ids, temperature=0.1, constant=constant)
            torch.testing.assert_close(got, supcon.mean())


def test_equal_rows_and_a_shuffled_queue() -> None:
    equal = unit(1, 4, 0)
    for constant in (False, True):
        got = info_nce_chosen(
            0 * equal.repeat(5, 1),
            equal.repeat(5, 1),
            equal.repeat(11, 1),
            chosen(LABEL, OF_QUEUE, 2),
            (LABEL, OF_QUEUE),
            temperature=0.1,
            constant=constant,
        )
        assert float(got) == pytest.approx(math.log(12))
    q, k, queue = unit(5, 4, 0), unit(5, 4, 1), unit(11, 4, 2)
    columns, order = chosen(LABEL, OF_QUEUE, 2), torch.randperm(11, generator=torch.Generator().manual_seed(1))
    there = torch.where(columns < 0, -1, order.argsort()[columns])
    one = info_nce_chosen(q, k, queue, columns, (LABEL, OF_QUEUE), temperature=0.1)
    other = info_nce_chosen(q, k, queue[order], there, (LABEL, OF_QUEUE[order]), temperature=0.1)
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("constant", [False, True])
def test_gradients(constant: bool) -> None:
    q, k, queue = unit(5, 4, 0).requires_grad_(), unit(5, 4, 1), unit(11, 4, 2)
    columns = chosen(LABEL, OF_QUEUE, 2)

    def loss(q: Tensor) -> Tensor:
        ids = LABEL, OF_QUEUE
        return info_nce_chosen(q, k, queue, columns, ids, temperature=0.5, constant=constant)

    assert torch.autograd.gradcheck(loss, q)


def _loss(q: Tensor, k: Tensor, draws: Tensor) -> Tensor:
    queue, label = unit(11, 4, 9).to(q.dtype), local(torch.tensor([0, 1, MISSING, 3, 2, 0]))
    columns = chosen(label, OF_QUEUE, 2, draws / 100)
    return info_nce_chosen(q, k, queue, columns, (label, OF_QUEUE), temperature=0.2)


def test_two_ranks_are_one(two_ranks: Pool) -> None:
    draws = (100 * uniform(6, 2)).long()
    hold_ranks_to_one(two_ranks, _loss, unit(6, 4, 0), unit(6, 4, 1), draws)
