from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.distributed import gather, local
from nearfar.losses.pairwise import info_nce
from nearfar.losses.relational import sce
from tests.losses.ranks import hold_ranks_to_one, unit
from tests.two_ranks import Pool

Own = Literal["left_out", "zero"]
owns = pytest.mark.parametrize("own", ["left_out", "zero"])


def softmax(logits: list[float]) -> list[float]:
    top = max(logits)
    e = [math.exp(x - top) for x in logits]
    return [x / sum(e) for x in e]


def slow(
    q: Tensor, k: Tensor, queue: Tensor, tau: float, tau_m: float, share: float, own: Own, apart: list[set[int]]
) -> tuple[float, float]:
    """The loss, and the mean entropy of the targets."""
    losses, entropies = [], []
    for i in range(len(q)):
        kept = [x for j, x in enumerate(queue) if j not in apart[i]]
        p = softmax([float(q[i] @ x) / tau for x in [k[i], *kept]])
        s = softmax([0.0 if own == "zero" or not kept else -1e30, *(float(k[i] @ x) / tau_m for x in kept)])
        w = [share * (j == 0) + (1 - share) * s[j] for j in range(len(p))]
        assert sum(w) == pytest.approx(1)
        losses.append(-sum(a * math.log(b) for a, b in zip(w, p, strict=True)))
        entropies.append(-sum(a * math.log(a) for a in w if a > 0))
    return sum(losses) / len(losses), sum(entropies) / len(entropies)


@owns
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("tau", "tau_m"), [(0.1, 0.05), (0.3, 0.9)])
def test_against_a_loop(tau: float, tau_m: float, share: float, own: Own) -> None:
    q, k, queue = unit(5, 4, 0), unit(5, 4, 1), unit(9, 4, 2)
    want, entropy = slow(q, k, queue, tau, tau_m, share, own, [set()] * 5)
    got = float(sce(q, k, queue, temperature=tau, target_temperature=tau_m, share=share, own=own))
    assert got == pytest.approx(want)
    assert got >= entropy


@owns
def test_rows_of_one_group_count_nowhere(own: Own) -> None:
    q, k, queue = unit(4, 4, 0).requires_grad_(), unit(4, 4, 1), unit(6, 4, 2)
    groups = torch.tensor([0, 1, MISSING, 2]), torch.tensor([0, 0, 1, MISSING, 1, 0])
    apart = [{0, 1, 5}, {2, 4}, set(), set()]
    got = sce(q, k, queue, temperature=0.2, target_temperature=0.1, share=0.5, own=own, groups=groups)
    assert float(got.detach()) == pytest.approx(slow(q.detach(), k, queue, 0.2, 0.1, 0.5, own, apart)[0])
    nobody = torch.zeros(4, dtype=torch.long), torch.zeros(6, dtype=torch.long)
    alone = sce(q, k, queue, temperature=0.2, target_temperature=0.1, share=0.5, own=own, groups=nobody)
    assert float(alone.detach()) == pytest.approx(0, abs=1e-12)
    assert torch.autograd.grad(alone, q)[0].abs().max() < 1e-12


@owns
def test_it_is_linear_in_the_share_and_info_nce_at_one(own: Own) -> None:
    q, k, queue = unit(5, 4, 0), unit(5, 4, 1), unit(9, 4, 2)
    none, half, whole = (
        sce(q, k, queue, temperature=0.2, target_temperature=0.1, share=share, own=own) for share in (0.0, 0.5, 1.0)
    )
    torch.testing.assert_close(half, (none + whole) / 2)
    torch.testing.assert_close(whole, info_nce(q, k, queue, temperature=0.2))


@owns
def test_the_gradient_is_that_of_cross_entropy_with_a_fixed_target(own: Own) -> None:
    q, k, queue = unit(5, 4, 0).requires_grad_(), unit(5, 4, 1).requires_grad_(), unit(9, 4, 2).requires_grad_()
    likeness = torch.cat([torch.zeros(5, 1) if own == "zero" else torch.full((5, 1), -math.inf), k @ queue.T / 0.1], 1)
    w = 0.5 * torch.eye(10, dtype=torch.float64)[:1] + 0.5 * likeness.softmax(1).detach()
    fixed_k, fixed_queue = k.detach(), queue.detach()
    logits = torch.cat([(q * fixed_k).sum(1, keepdim=True), q @ fixed_queue.T], 1) / 0.2
    want = -(w * logits.log_softmax(1)).sum(1).mean()
    got = sce(q, fixed_k, fixed_queue, temperature=0.2, target_temperature=0.1, share=0.5, own=own)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got, q)[0], torch.autograd.grad(want, q)[0])


def test_ends_of_the_target_temperature() -> None:
    q, k, queue = unit(5, 4, 0), unit(5, 4, 1), unit(9, 4, 2)
    log_p = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], 1).div(0.2).log_softmax(1)
    nearest = (k @ queue.T).argmax(1)
    sharp = sce(q, k, queue, temperature=0.2, target_temperature=1e-4, share=0.0)
    torch.testing.assert_close(sharp, -log_p[torch.arange(5), 1 + nearest].mean())
    flat = sce(q, k, queue, temperature=0.2, target_temperature=1e9, share=0.0)
    torch.testing.assert_close(flat, -log_p[:, 1:].mean())
    flat = sce(q, k, queue, temperature=0.2, target_temperature=1e9, share=0.0, own="zero")
    torch.testing.assert_close(flat, -log_p.mean())


@owns
def test_the_order_of_the_queue_does_not_matter_and_equal_rows_have_a_closed_form(own: Own) -> None:
    q, k, queue = unit(5, 4, 0), unit(5, 4, 1), unit(9, 4, 2)
    want = sce(q, k, queue, temperature=0.2, target_temperature=0.1, share=0.5, own=own)
    torch.testing.assert_close(
        sce(q, k, queue.flip(0), temperature=0.2, target_temperature=0.1, share=0.5, own=own), want
    )
    z = unit(1, 4, 0)
    same = sce(z.repeat(5, 1), z.repeat(5, 1), z.repeat(9, 1), temperature=0.2, target_temperature=0.1, share=0.5)
    assert float(same) == pytest.approx(math.log(10))


def test_small_temperatures_stay_finite_in_single_precision() -> None:
    q, k, queue = (unit(n, 8, s).float() for s, n in enumerate((5, 5, 20)))
    q.requires_grad_()
    loss = sce(q, k, queue, temperature=0.01, target_temperature=0.005, share=0.5, own="zero")
    assert loss.isfinite()
    assert torch.autograd.grad(loss, q)[0].isfinite().all()


def _sce(q: Tensor, k: Tensor) -> Tensor:
    q, other = torch.nn.functional.normalize(q), torch.nn.functional.normalize(k).detach()
    groups = local(torch.arange(len(gather(q.detach()))) % 3), torch.arange(20) % 4
    queue = unit(20, 4, 9).to(q.dtype)
    return sce(q, other, queue, temperature=0.2, target_temperature=0.1, share=0.5, groups=groups) + 0 * k.sum()


def test_two_ranks(two_ranks: Pool) -> None:
    hold_ranks_to_one(two_ranks, _sce, unit(8, 4, 0), unit(8, 4, 1))
