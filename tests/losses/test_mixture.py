from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nearfar.losses.mixture import mixture_nce
from nearfar.losses.pairwise import info_nce
from tests.losses.ranks import hold_ranks_to_one, unit
from tests.two_ranks import Pool

N, K, D, M = 4, 3, 5, 7


def experts(n: int, seed: int) -> Tensor:
    return unit(n * K, D, seed).view(n, K, D)


def gates(seed: int = 9) -> Tensor:
    return (2 * unit(N, K, seed)).log_softmax(1)


def slow(q: Tensor, v: Tensor, queue: Tensor, gate: Tensor, tau: float) -> tuple[float, list[list[float]]]:
    losses, posterior = [], []
    for i in range(N):
        joint = []
        for k in range(K):
            own = math.exp(float(q[i, k] @ v[i, k]) / tau)
            others = sum(math.exp(float(q[i, k] @ queue[j, k]) / tau) for j in range(M))
            joint.append(math.exp(float(gate[i, k])) * own / (own + others))
        losses.append(-math.log(sum(joint)))
        posterior.append([value / sum(joint) for value in joint])
    return sum(losses) / N, posterior


@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_against_a_slow_loop(tau: float) -> None:
    q, v, queue = experts(N, 0), experts(N, 1), experts(M, 2)
    loss, posterior = mixture_nce(q, v, queue, gates(), temperature=tau)
    want, of_loop = slow(q, v, queue, gates(), tau)
    assert float(loss) == pytest.approx(want, abs=1e-12)
    torch.testing.assert_close(posterior, torch.tensor(of_loop, dtype=torch.float64))


def test_it_is_the_evidence_bound_with_the_posterior_in_value_and_gradient() -> None:
    q, v, queue, gate = experts(N, 0).requires_grad_(), experts(N, 1), experts(M, 2), gates().requires_grad_()
    loss, posterior = mixture_nce(q, v, queue, gate, temperature=0.5)
    pull = (q * v).sum(2) / 0.5
    push = torch.einsum("nkd,mkd->nkm", q, queue) / 0.5
    phi = pull - torch.cat([pull[..., None], push], 2).logsumexp(2)
    bound = -(posterior * (gate + phi - posterior.log())).sum(1).mean()
    torch.testing.assert_close(loss, bound)
    torch.testing.assert_close(torch.autograd.grad(loss, [q, gate]), torch.autograd.grad(bound, [q, gate]))


def test_one_expert_is_info_nce_and_so_are_equal_ones_under_an_even_gate() -> None:
    q, v, queue = unit(N, D, 0), unit(N, D, 1), unit(M, D, 2)
    want = info_nce(q, v, queue, temperature=0.2)
    one, _ = mixture_nce(q[:, None], v[:, None], queue[:, None], torch.zeros(N, 1).double(), temperature=0.2)
    torch.testing.assert_close(one, want)
    a, b, c = (x[:, None].expand(-1, K, -1) for x in (q, v, queue))
    even = torch.zeros(N, K).double().log_softmax(1)
    loss, posterior = mixture_nce(a, b, c, even, temperature=0.2)
    torch.testing.assert_close(loss, want)
    torch.testing.assert_close(posterior, torch.full((N, K), 1 / K).double())


def test_the_order_of_experts_does_not_matter() -> None:
    q, v, queue, order = experts(N, 0), experts(N, 1), experts(M, 2), torch.tensor([2, 0, 1])
    one, p = mixture_nce(q, v, queue, gates(), temperature=0.2)
    two, moved = mixture_nce(q[:, order], v[:, order], queue[:, order], gates()[:, order], temperature=0.2)
    torch.testing.assert_close(one, two)
    torch.testing.assert_close(moved, p[:, order])


def test_keys_of_one_group_are_not_pushed_apart() -> None:
    q, v, queue = experts(N, 0), experts(N, 1), experts(M, 2)
    groups = torch.tensor([1, 1, 1, 1]), torch.tensor([1, 2, -1, 3, 1, 1, 5])
    got, _ = mixture_nce(q, v, queue, gates(), temperature=0.2, groups=groups)
    want, _ = mixture_nce(q, v, queue[[1, 2, 3, 6]], gates(), temperature=0.2)
    torch.testing.assert_close(got, want)


def _mixture(q: Tensor, v: Tensor) -> Tensor:
    q, v = (x.view(-1, 2, 3) for x in (q, v.detach()))
    queue = unit(10, 6, 3).view(10, 2, 3).to(q.dtype)
    gate = q.sum(2).log_softmax(1)
    return mixture_nce(q, v, queue, gate, temperature=0.5)[0]


def _of_one(q: Tensor) -> Tensor:
    return _mixture(q, q.flip(1))


def test_two_ranks(two_ranks: Pool) -> None:
    hold_ranks_to_one(two_ranks, _of_one, unit(8, 6, 0))
