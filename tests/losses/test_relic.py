from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.losses.relic import relic
from tests.losses.ranks import hold_ranks_to_one, unit
from tests.two_ranks import Pool

First = Literal["own", "other"]


def logits(seed: int, m: int = 5) -> Tensor:
    return torch.randn(4, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow(s: Tensor, other: Tensor, beta: float, first: First) -> Tensor:
    losses = []
    for a, b in zip(s, other, strict=True):
        p, q = a.exp() / a.exp().sum(), (b.exp() / b.exp().sum()).detach()
        x, y = (p, q) if first == "own" else (q, p)
        divergence = sum(x[j] * (x[j] / y[j]).log() for j in range(len(a)) if a[j] > -math.inf)
        losses.append(-p[0].log() + beta * divergence)
    return torch.stack(losses).mean()


@pytest.mark.parametrize("first", ["own", "other"])
@pytest.mark.parametrize("hidden", [False, True])
def test_relic_is_that_of_a_loop_with_gradient_through_one_distribution(first: First, hidden: bool) -> None:
    s, other = logits(0).requires_grad_(), logits(1).requires_grad_()
    mask = torch.zeros(4, 5, dtype=torch.bool)
    mask[1, 2:] = mask[3, 1:] = hidden
    got = relic(s.masked_fill(mask, -torch.inf), other.masked_fill(mask, -torch.inf), beta=0.7, first=first)
    want = slow(s.masked_fill(mask, -torch.inf), other.masked_fill(mask, -torch.inf), 0.7, first)
    torch.testing.assert_close(got, want)
    grads = torch.autograd.grad(got, [s, other], allow_unused=True)
    assert grads[1] is None
    assert grads[0].isfinite().all()
    torch.testing.assert_close(grads[0], torch.autograd.grad(want, s)[0].nan_to_num(0))


def test_without_divergence_it_is_cross_entropy() -> None:
    s = logits(0)
    want = F.cross_entropy(s, torch.zeros(4, dtype=torch.long))
    torch.testing.assert_close(relic(s, logits(1), beta=0), want)
    torch.testing.assert_close(relic(s, s + 3, beta=5), want)  # the same distribution
    assert relic(s, logits(1), beta=1) > want


def test_one_candidate_or_equal_ones_have_the_loss_of_chance() -> None:
    assert float(relic(logits(0, 1), logits(1, 1))) == pytest.approx(0, abs=1e-12)
    assert float(relic(torch.ones(4, 6), torch.zeros(4, 6))) == pytest.approx(math.log(6))


def test_the_order_of_negatives_does_not_matter() -> None:
    order = torch.tensor([0, 4, 2, 1, 3])
    for first in ("own", "other"):
        got = relic(logits(0)[:, order], logits(1)[:, order], first=first)
        torch.testing.assert_close(got, relic(logits(0), logits(1), first=first))


def _relic(s: Tensor, other: Tensor) -> Tensor:
    return relic(3 * s, 3 * other) + 0 * other.sum()


def test_two_ranks(two_ranks: Pool) -> None:
    hold_ranks_to_one(two_ranks, _relic, unit(6, 4, 0), unit(6, 4, 1))
