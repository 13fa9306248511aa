from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nearfar import distributed
from nearfar.losses.pairwise import info_nce, info_nce_batch
from nearfar.losses.proto_nce import proto_nce
from tests.losses.ranks import hold_ranks_to_one, unit
from tests.two_ranks import Pool

CLUSTER = torch.tensor([4, 1, 4, 0, 1, 4])
NEGATIVES = torch.tensor([6, 2, 3])


def phi(k: int) -> Tensor:
    return torch.linspace(0.1, 0.4, k, dtype=torch.float64)


def slow(q: Tensor, c: Tensor, phi: Tensor, cluster: list[int], negatives: list[int], *, repeat: bool) -> float:
    pushed = (cluster if repeat else sorted(set(cluster))) + negatives
    losses = []
    for row, own in zip(q, cluster, strict=True):
        logit = [float(row @ c[j]) / float(phi[j]) for j in pushed]
        losses.append(math.log(sum(map(math.exp, logit))) - float(row @ c[own]) / float(phi[own]))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("repeat", [False, True])
@pytest.mark.parametrize("negatives", [NEGATIVES, NEGATIVES[:0]])
def test_against_a_slow_loop(negatives: Tensor, *, repeat: bool) -> None:
    q, c = unit(6, 4, 0), unit(7, 4, 1)
    got = proto_nce(q, c, phi(7), CLUSTER, negatives, repeat=repeat)
    want = slow(q, c, phi(7), CLUSTER.tolist(), negatives.tolist(), repeat=repeat)
    assert float(got) == pytest.approx(want, abs=1e-12)


def test_a_cluster_of_one_s_own_is_not_repeated() -> None:
    q, c, alone = unit(5, 4, 0), unit(9, 4, 1), torch.tensor([3, 0, 8, 5, 1])
    one, other = (proto_nce(q, c, phi(9), alone, NEGATIVES, repeat=repeat) for repeat in (False, True))
    torch.testing.assert_close(one, other)


def test_one_cluster_for_each_sample_is_info_nce_among_keys() -> None:
    q, k = unit(6, 4, 0).requires_grad_(), unit(6, 4, 1)
    got = proto_nce(q, k, torch.full((6,), 0.2).double(), torch.arange(6), NEGATIVES[:0])
    want = info_nce_batch(q, k, temperature=0.2)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got, q), torch.autograd.grad(want, q))


def test_equal_clusters_have_the_loss_of_chance_and_the_order_of_negatives_does_not_matter() -> None:
    q, c = unit(6, 4, 0), unit(1, 4, 1).repeat(7, 1)
    equal = torch.full((7,), 0.3).double()
    assert float(proto_nce(q, c, equal, CLUSTER, NEGATIVES)) == pytest.approx(math.log(6))
    assert float(proto_nce(q, c, equal, CLUSTER, NEGATIVES, repeat=True)) == pytest.approx(math.log(9))
    c = unit(7, 4, 1)
    torch.testing.assert_close(
        proto_nce(q, c, phi(7), CLUSTER, NEGATIVES.flip(0)), proto_nce(q, c, phi(7), CLUSTER, NEGATIVES)
    )


def test_only_queries_learn_and_a_negative_lowers_nothing() -> None:
    q, c = unit(6, 4, 0), unit(7, 4, 1)
    more, less = (proto_nce(q, c, phi(7), CLUSTER, negatives) for negatives in (NEGATIVES, NEGATIVES[:1]))
    assert more > less > 0
    one = proto_nce(q[:1], c, phi(7), CLUSTER[:1], NEGATIVES)  # one query, one positive: a queue of the others
    other = info_nce(q[:1], c[4:5] / phi(7)[4], c[NEGATIVES] / phi(7)[NEGATIVES, None], temperature=1.0)
    torch.testing.assert_close(one, other)


def _shared(q: Tensor) -> Tensor:
    cluster = (distributed.rank() * len(q) + torch.arange(len(q))) % 3
    return proto_nce(q, unit(7, 4, 1).to(q.dtype), phi(7).to(q.dtype), cluster, NEGATIVES[[0, 2]])


def _repeated(q: Tensor) -> Tensor:
    cluster = (distributed.rank() * len(q) + torch.arange(len(q))) % 2
    return proto_nce(q, unit(7, 4, 1).to(q.dtype), phi(7).to(q.dtype), cluster, NEGATIVES, repeat=True)


@pytest.mark.parametrize("loss", [_shared, _repeated])
def test_two_ranks(two_ranks: Pool, loss) -> None:  # type: ignore[no-untyped-def]
    hold_ranks_to_one(two_ranks, loss, unit(8, 4, 0))
