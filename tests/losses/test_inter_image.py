from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.distributed import normalize
from nearfar.losses import inter_image
from nearfar.losses.inter_image import Sampling, draw_negatives, draw_positive, margin_nce
from tests.losses.ranks import hold_ranks_to_one, unit
from tests.two_ranks import Pool

LABEL, BANK = torch.tensor([2, 0, 1, 2]), torch.arange(12) % 3
U = torch.rand(12, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def draw(sampling: Sampling, count: int = 3, pool: int = 6, u: Tensor = U) -> Tensor:
    return draw_negatives(unit(4, 5, 0), unit(12, 5, 1), (LABEL, BANK), u, count=count, pool=pool, sampling=sampling)


def test_a_positive_is_any_row_of_the_label() -> None:
    label = torch.tensor([3, 0, 3, 1, 0, 3])
    seen = {c: set() for c in (0, 1, 3)}
    for u in torch.linspace(0, 0.999, 30):
        found = draw_positive(torch.tensor([3, 1, 0]), label, u.expand(3))
        assert label[found].tolist() == [3, 1, 0]
        for c, row in zip((3, 1, 0), found.tolist(), strict=True):
            seen[c].add(row)
    assert seen == {0: {1, 4}, 1: {3}, 3: {0, 2, 5}}


@pytest.mark.parametrize("sampling", get_args(Sampling))
def test_negatives_are_of_the_pool_and_of_other_labels(sampling: Sampling) -> None:
    q, bank, chosen = unit(4, 5, 0), unit(12, 5, 1), draw(sampling)
    for i in range(4):
        order = sorted(range(12), key=lambda j: -float(q[i] @ bank[j]))
        other = [j for j in order if BANK[j] != LABEL[i]]
        if sampling == "hard":
            want = other[:3]
        else:
            pool = {"semi-hard": order[:6], "semi-easy": order[-6:], "random": order}[sampling]
            want = sorted((j for j in pool if j in other), key=lambda j: -float(U[j]))[:3]
        assert chosen[i].nonzero()[:, 0].tolist() == sorted(want)


def test_other_draws_are_other_negatives_of_the_same_pool() -> None:
    assert not torch.equal(draw("semi-hard", count=2), draw("semi-hard", count=2, u=1 - U))
    assert torch.equal(draw("semi-hard", count=6), draw("semi-hard", count=6, u=1 - U))  # all there are
    assert torch.equal(draw("hard"), draw("hard", u=1 - U))


def test_where_there_are_too_few_there_are_fewer() -> None:
    all_ = draw("semi-hard", count=50, pool=50)
    assert torch.equal(all_, LABEL[:, None] != BANK)
    none = draw_negatives(
        unit(4, 5, 0), unit(12, 5, 1), (LABEL * 0, BANK * 0), U, count=3, pool=6, sampling="semi-hard"
    )
    assert not none.any()


def test_rows_of_a_group_are_not_drawn_and_parts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    group, of_bank = torch.tensor([5, MISSING, 5, 7]), torch.tensor([5, MISSING, 7, 5] * 3)
    args = unit(4, 5, 0), unit(12, 5, 1), (LABEL, BANK, group, of_bank), U
    chosen = draw_negatives(*args, count=50, pool=50, sampling="random")
    want = (LABEL[:, None] != BANK) & ~((group[:, None] == of_bank) & (group[:, None] != MISSING))
    assert torch.equal(chosen, want)
    few = draw_negatives(*args, count=2, pool=5, sampling="semi-hard")
    monkeypatch.setattr(inter_image, "ROWS", 3)
    assert torch.equal(draw_negatives(*args, count=2, pool=5, sampling="semi-hard"), few)


def slow(q: Tensor, k: Tensor, bank: Tensor, chosen: Tensor, tau: float, margin: float, *, arc: bool) -> float:
    losses = []
    for i in range(len(q)):
        cosine = float(q[i] @ k[i])
        s = (math.cos(math.acos(cosine) + margin) if arc else cosine - margin) / tau
        push = sum(math.exp(float(q[i] @ bank[j]) / tau) for j in chosen[i].nonzero()[:, 0])
        losses.append(math.log(math.exp(s) + push) - s)
    return sum(losses) / len(losses)


@pytest.mark.parametrize("arc", [False, True])
@pytest.mark.parametrize("margin", [-0.4, 0.0, 0.3])
def test_against_a_slow_loop(margin: float, *, arc: bool) -> None:
    q, bank, chosen = unit(4, 5, 0), unit(12, 5, 1), draw("semi-hard")
    k = normalize(q + unit(4, 5, 4))  # at about 45 degrees, where no margin leaves [0, pi]
    got = margin_nce(q, k, bank, chosen, temperature=0.2, margin=margin, arc=arc)
    assert float(got) == pytest.approx(slow(q, k, bank, chosen, 0.2, margin, arc=arc), abs=1e-6)
    assert torch.autograd.gradcheck(
        lambda q: margin_nce(q, k, bank, chosen, temperature=0.2, margin=margin, arc=arc), q.requires_grad_()
    )


@pytest.mark.parametrize("arc", [False, True])
def test_the_loss_rises_with_the_margin_and_falls_with_the_cosine_without_a_jump(*, arc: bool) -> None:
    angle = torch.linspace(0.0, math.pi, 100, dtype=torch.float64)
    q = torch.tensor([[1.0, 0, 0]], dtype=torch.float64)
    bank, chosen = unit(12, 3, 1), torch.ones(1, 12, dtype=torch.bool)
    before = None
    for margin in (-0.5, 0.0, 0.2, 0.5):
        keys = torch.stack([angle.cos(), angle.sin(), 0 * angle], 1)
        values = torch.stack(
            [margin_nce(q, k[None], bank, chosen, temperature=0.2, margin=margin, arc=arc) for k in keys]
        )
        assert (values.diff() > -1e-6).all()
        assert values.diff().max() < 0.4
        assert before is None or (values > before - 1e-6).all()
        before = values


def test_no_negatives_no_loss_and_no_gradient_that_is_not_finite() -> None:
    q, k, bank = unit(4, 5, 0).requires_grad_(), unit(4, 5, 4), unit(12, 5, 1)
    loss = margin_nce(q, k, bank, torch.zeros(4, 12, dtype=torch.bool), temperature=0.2, margin=-0.5)
    assert float(loss.detach()) == 0
    assert not torch.autograd.grad(loss, q)[0].any()
    same = margin_nce(q, q.detach(), bank, draw("random"), temperature=0.2, margin=-0.5, arc=True)
    assert torch.autograd.grad(same, q)[0].isfinite().all()


def _loss(q: Tensor) -> Tensor:
    from nearfar.distributed import rank

    label = (rank() * len(q) + torch.arange(len(q))) % 3
    q, bank = normalize(q), unit(12, 4, 1).to(q.dtype)
    chosen = draw_negatives(q, bank, (label, BANK), U.to(q), count=4, pool=8, sampling="semi-hard")
    return margin_nce(q, bank[label], bank, chosen, temperature=0.2, margin=-0.5)


def test_two_ranks(two_ranks: Pool) -> None:
    hold_ranks_to_one(two_ranks, _loss, unit(8, 4, 0))
