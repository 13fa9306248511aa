from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.distributed import gather, local
from nearfar.losses import synthetic
from nearfar.losses.pairwise import info_nce
from nearfar.losses.synthetic import hardest, info_nce_mixed, mixtures
from tests.losses.ranks import hold_ranks_to_one, unit
from tests.two_ranks import Pool


def draws(n: int, kinds: int, points: int, seed: int = 0) -> Tensor:
    return torch.rand(n, kinds, points, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("block", [3, 7, 4096])
def test_hardest_are_the_nearest_of_each_query(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "BLOCK", block)
    q, queue = unit(5, 4, 0), unit(20, 4, 1)
    where, known = hardest(q, queue, 6)
    assert known.tolist() == [6] * 5
    for i in range(5):
        order = sorted(range(20), key=lambda j: -float(q[i] @ queue[j]))
        assert where[i].tolist() == order[:6]


def test_hardest_passes_over_the_own_group() -> None:
    q, queue = unit(3, 4, 0), unit(8, 4, 1)
    of_queue = torch.tensor([0, 0, 0, 0, 0, 1, MISSING, 0])
    where, known = hardest(q, queue, 4, (torch.tensor([0, MISSING, 1]), of_queue))
    assert known.tolist() == [2, 4, 4]
    assert set(where[0, :2].tolist()) == {5, 6}
    assert 5 not in where[2].tolist()


def test_mixtures_are_those_of_a_loop() -> None:
    q, queue = unit(4, 5, 0), unit(12, 5, 1)
    hard, known = hardest(q, queue, 6)
    pairs, own = draws(4, 3, 7), draws(4, 2, 5, seed=1)
    got = mixtures(q, queue, hard, known, pairs, own)
    assert got.shape == (4, 12, 5)
    for i in range(4):
        for s in range(7):
            u, v, a = (float(x) for x in pairs[i, :, s])
            h = a * queue[hard[i, int(6 * u)]] + (1 - a) * queue[hard[i, int(6 * v)]]
            torch.testing.assert_close(got[i, s], h / h.norm())
        for s in range(5):
            u, b = (float(x) for x in own[i, :, s])
            h = b / 2 * q[i] + (1 - b / 2) * queue[hard[i, int(6 * u)]]
            torch.testing.assert_close(got[i, 7 + s], h / h.norm())


def test_mixtures_lie_between_their_parents() -> None:
    q, queue = unit(6, 5, 0), unit(20, 5, 1)
    hard, known = hardest(q, queue, 4)
    pairs, own = draws(6, 3, 9), draws(6, 2, 9)
    got = mixtures(q, queue, hard, known, pairs, own)
    torch.testing.assert_close(got.norm(dim=2), torch.ones(6, 18, dtype=torch.float64))
    parents = queue[hard.gather(1, (own[:, 0] * 4).long())]
    toward = got[:, 9:]
    assert bool(((toward * q[:, None]).sum(2) >= (parents * q[:, None]).sum(2) - 1e-12).all())
    assert bool(((toward * parents).sum(2) >= (toward * q[:, None]).sum(2) - 1e-12).all())  # the key weighs more
    pairs[:, 2], own[:, 1] = 0, 0
    at_the_ends = mixtures(q, queue, hard, known, pairs, own)
    torch.testing.assert_close(at_the_ends[:, 9:], parents)
    torch.testing.assert_close(at_the_ends[:, :9], queue[hard.gather(1, (pairs[:, 1] * 4).long())])


def test_a_query_that_knows_no_key_gets_no_mixtures() -> None:
    q, queue = unit(2, 4, 0).requires_grad_(), unit(5, 4, 1)
    groups = torch.tensor([0, 1]), torch.zeros(5, dtype=torch.long)
    hard, known = hardest(q, queue, 3, groups)
    assert known.tolist() == [0, 3]
    mixed = mixtures(q, queue, hard, known, draws(2, 3, 4), draws(2, 2, 4))
    assert not mixed[0].any()
    k = unit(2, 4, 2)
    loss = info_nce_mixed(q, k, queue, mixed, temperature=0.2, groups=groups)
    alone = info_nce_mixed(q[1:], k[1:], queue, mixed[1:], temperature=0.2)
    torch.testing.assert_close(loss, alone / 2)  # with no negative a loss is 0
    assert torch.autograd.grad(loss, q)[0].isfinite().all()


def slow(q: Tensor, k: Tensor, queue: Tensor, mixed: Tensor, temperature: float) -> float:
    losses = []
    for i, query in enumerate(q):
        logits = [float(query @ x) / temperature for x in [k[i], *queue, *mixed[i]]]
        losses.append(math.log(sum(map(math.exp, logits))) - logits[0])
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_info_nce_mixed(temperature: float) -> None:
    q, k, queue, mixed = unit(5, 4, 0), unit(5, 4, 1), unit(9, 4, 2), unit(5 * 6, 4, 3).view(5, 6, 4)
    got = info_nce_mixed(q, k, queue, mixed, temperature=temperature)
    assert float(got) == pytest.approx(slow(q, k, queue, mixed, temperature))
    assert got > info_nce(q, k, queue, temperature=temperature)


def test_without_mixtures_it_is_info_nce() -> None:
    q, k, queue = unit(5, 4, 0).requires_grad_(), unit(5, 4, 1), unit(9, 4, 2)
    want, got = info_nce(q, k, queue, temperature=0.1), info_nce_mixed(q, k, queue, q[:, :0, None], temperature=0.1)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got, q)[0], torch.autograd.grad(want, q)[0])


def test_equal_rows() -> None:
    z = unit(1, 4, 0)
    loss = info_nce_mixed(z.repeat(3, 1), z.repeat(3, 1), z.repeat(9, 1), z.repeat(3, 5, 1), temperature=0.1)
    assert float(loss) == pytest.approx(math.log(15))


def _mixed(q: Tensor, k: Tensor) -> Tensor:
    q, raw, k = torch.nn.functional.normalize(q), k, torch.nn.functional.normalize(k).detach()
    queue, n = unit(20, 4, 9).to(q.dtype), len(gather(q.detach()))
    groups = local(torch.arange(n) % 3), torch.arange(20) % 4
    hard, known = hardest(q, queue, 6, groups)
    mixed = mixtures(q, queue, hard, known, local(draws(n, 3, 5)), local(draws(n, 2, 4)))
    return info_nce_mixed(q, k, queue, mixed, temperature=0.2, groups=groups) + 0 * raw.sum()


def test_two_ranks(two_ranks: Pool) -> None:
    hold_ranks_to_one(two_ranks, _mixed, unit(8, 4, 0), unit(8, 4, 1))
