from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import MISSING
from nearfar.distributed import normalize
from nearfar.losses import pairwise
from nearfar.losses.pairwise import clip, hard_info_nce, info_nce, info_nce_batch, nt_xent, siglip
from tests.losses.ranks import hold_ranks_to_one, unit
from tests.two_ranks import Pool


def slow_nt_xent(z1: Tensor, z2: Tensor, temperature: float) -> float:
    rows = [*z1, *z2]
    n = len(z1)
    losses = []
    for i, anchor in enumerate(rows):
        partner = (i + n) % (2 * n)
        others = [math.exp(float(anchor @ rows[j]) / temperature) for j in range(2 * n) if j != i]
        losses.append(-float(anchor @ rows[partner]) / temperature + math.log(sum(others)))
    return sum(losses) / len(losses)


def slow_info_nce(q: Tensor, k: Tensor, queue: Tensor, temperature: float) -> float:
    losses = []
    for query, key in zip(q, k, strict=True):
        positive = math.exp(float(query @ key) / temperature)
        negatives = [math.exp(float(query @ other) / temperature) for other in queue]
        losses.append(-math.log(positive / (positive + sum(negatives))))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.05, 0.1, 0.5])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_nt_xent(n: int, temperature: float) -> None:
    z1, z2 = unit(n, 4, 0), unit(n, 4, 1)
    assert float(nt_xent(z1, z2, temperature=temperature)) == pytest.approx(slow_nt_xent(z1, z2, temperature))


def test_nt_xent_of_equal_rows() -> None:
    z = unit(1, 4, 0).repeat(6, 1)
    for temperature in (0.01, 0.1, 1.0):
        assert float(nt_xent(z, z, temperature=temperature)) == pytest.approx(math.log(11))


def test_nt_xent_of_one_pair_is_zero() -> None:
    assert float(nt_xent(unit(1, 4, 0), unit(1, 4, 1), temperature=0.1)) == pytest.approx(0, abs=1e-12)


def test_nt_xent_does_not_feel_order_rotation_or_which_view_is_first() -> None:
    z1, z2 = unit(7, 4, 0), unit(7, 4, 1)
    want = nt_xent(z1, z2, temperature=0.2)
    shuffle = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    rotation = torch.linalg.qr(unit(4, 4, 2))[0]
    torch.testing.assert_close(nt_xent(z2, z1, temperature=0.2), want)
    torch.testing.assert_close(nt_xent(z1[shuffle], z2[shuffle], temperature=0.2), want)
    torch.testing.assert_close(nt_xent(z1 @ rotation, z2 @ rotation, temperature=0.2), want)
    assert want > 0


def test_nt_xent_is_cross_entropy_with_a_masked_diagonal() -> None:
    z1, z2 = unit(6, 4, 0).requires_grad_(), unit(6, 4, 1).requires_grad_()
    z = torch.cat([z1, z2])
    logits = (z @ z.T / 0.1).masked_fill(torch.eye(12, dtype=torch.bool), -math.inf)
    want = F.cross_entropy(logits, torch.arange(12).roll(6))
    got = nt_xent(z1, z2, temperature=0.1)
    torch.testing.assert_close(got, want)
    for a, b in zip(torch.autograd.grad(got, [z1, z2]), torch.autograd.grad(want, [z1, z2]), strict=True):
        torch.testing.assert_close(a, b)


def test_gradient_is_orthogonal_to_raw_rows() -> None:
    raw = (unit(6, 4, 0) * 3).requires_grad_()
    value = nt_xent(normalize(raw), unit(6, 4, 1), temperature=0.1)
    torch.testing.assert_close(nt_xent(normalize(raw * 5), unit(6, 4, 1), temperature=0.1), value)
    gradient = torch.autograd.grad(value, raw)[0]
    assert float((gradient * raw).sum(1).abs().max().detach()) < 1e-12


def test_nt_xent_with_further_negatives_from_a_queue() -> None:
    z1, z2, queue = unit(4, 4, 0).requires_grad_(), unit(4, 4, 1), unit(9, 4, 2)
    group, of_queue = torch.tensor([0, MISSING, 1, 0]), torch.tensor([0, 1, MISSING, 0, 2, 1, 0, 3, MISSING])
    rows, groups = [*z1.detach(), *z2], group.tolist()
    for ids in (None, group):
        losses = []
        for i, anchor in enumerate(rows):
            mine = MISSING if ids is None else groups[i % 4]
            free = lambda other: mine == MISSING or other != mine  # noqa: B023
            kept = [rows[j] for j in range(8) if j == (i + 4) % 8 or (j != i and free(groups[j % 4]))]
            kept += [x for x, other in zip(queue, of_queue.tolist(), strict=True) if free(other)]
            push = math.log(sum(math.exp(float(anchor @ x) / 0.2) for x in kept))
            losses.append(push - float(anchor @ rows[(i + 4) % 8]) / 0.2)
        got = nt_xent(z1, z2, temperature=0.2, group=ids, queue=(queue, of_queue))
        assert float(got.detach()) == pytest.approx(sum(losses) / 8)
        assert got > nt_xent(z1, z2, temperature=0.2, group=ids)
    empty = nt_xent(z1, z2, temperature=0.2, queue=(queue[:0], of_queue[:0]))
    torch.testing.assert_close(empty, nt_xent(z1, z2, temperature=0.2))
    assert torch.autograd.grad(empty, z1)[0].isfinite().all()


def test_learnable_temperature() -> None:
    z1, z2, queue = unit(5, 4, 0), unit(5, 4, 1), unit(9, 4, 2)
    tau = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda tau: nt_xent(z1, z2, temperature=tau), (tau,))
    assert torch.autograd.gradcheck(lambda tau: info_nce(z1, z2, queue, temperature=tau), (tau,))
    assert torch.autograd.gradcheck(lambda tau: info_nce_batch(z1, z2, temperature=tau), (tau,))
    assert torch.autograd.gradcheck(lambda tau: clip(z1, z2, temperature=tau), (tau,))


@pytest.mark.parametrize("temperature", [0.07, 0.2])
@pytest.mark.parametrize("queue", [0, 1, 20])
def test_info_nce(queue: int, temperature: float) -> None:
    q, k, negatives = unit(5, 4, 0), unit(5, 4, 1), unit(queue, 4, 2)
    got = info_nce(q, k, negatives, temperature=temperature)
    assert float(got) == pytest.approx(slow_info_nce(q, k, negatives, temperature), abs=1e-12)


def test_info_nce_of_equal_rows_and_of_an_empty_queue() -> None:
    z = unit(1, 4, 0).repeat(5, 1)
    for temperature in (0.01, 0.2):
        assert float(info_nce(z, z, z.repeat(20, 1), temperature=temperature)) == pytest.approx(math.log(101))
    q = unit(5, 4, 1).requires_grad_()
    empty = info_nce(q, z, z[:0], temperature=0.1)
    assert float(empty.detach()) == 0
    assert (torch.autograd.grad(empty, q)[0] == 0).all()


def test_info_nce_is_cross_entropy_with_label_zero() -> None:
    q, k, queue = unit(5, 4, 0).requires_grad_(), unit(5, 4, 1), unit(12, 4, 2)
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], 1) / 0.1
    want = F.cross_entropy(logits, torch.zeros(5, dtype=torch.long))
    got = info_nce(q, k, queue, temperature=0.1)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got, q)[0], torch.autograd.grad(want, q)[0])
    shuffle = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(info_nce(q, k, queue[shuffle], temperature=0.1), want)


def test_info_nce_batch() -> None:
    q, k = unit(6, 4, 0).requires_grad_(), unit(6, 4, 1).requires_grad_()
    want = F.cross_entropy(q @ k.T / 0.1, torch.arange(6))
    got = info_nce_batch(q, k, temperature=0.1)
    torch.testing.assert_close(got, want)
    for a, b in zip(torch.autograd.grad(got, [q, k]), torch.autograd.grad(want, [q, k]), strict=True):
        torch.testing.assert_close(a, b)
    equal = unit(1, 4, 0).repeat(8, 1)
    assert float(info_nce_batch(equal, equal, temperature=0.1)) == pytest.approx(math.log(8))


@pytest.mark.parametrize("temperature", [0.1, 0.2])
def test_without_the_positive_below(temperature: float) -> None:
    q, k = unit(6, 4, 0).requires_grad_(), unit(6, 4, 1).requires_grad_()
    losses = []
    for i in range(6):
        push = sum(math.exp(float(q[i].detach() @ k[j].detach()) / temperature) for j in range(6) if j != i)
        losses.append(math.log(push) - float(q[i].detach() @ k[i].detach()) / temperature)
    got = info_nce_batch(q, k, temperature=temperature, positive_below=False)
    assert float(got.detach()) == pytest.approx(sum(losses) / 6)
    # With the positive it is the softplus, row by row.
    want = info_nce_batch(q, k, temperature=temperature)
    assert sum(math.log1p(math.exp(loss)) for loss in losses) / 6 == pytest.approx(float(want.detach()))
    eye = torch.eye(8, dtype=torch.float64)
    same = info_nce_batch(eye, eye, temperature=0.2, positive_below=False)
    assert float(same) == pytest.approx(math.log(7) - 5)
    group = torch.tensor([0, 0, MISSING, 1, 1, 1])
    free = torch.tensor([[i != j and not (group[i] == group[j] != MISSING) for j in range(6)] for i in range(6)])
    logits = q.detach() @ k.detach().T / temperature
    want = (logits.masked_fill(~free, -math.inf).logsumexp(1) - logits.diagonal()).mean()
    torch.testing.assert_close(
        info_nce_batch(q, k, temperature=temperature, group=group, positive_below=False).detach(), want
    )
    with pytest.raises(ValueError, match="1 sample"):
        info_nce_batch(q[:1], k[:1], temperature=temperature, positive_below=False)


def slow_hard_info_nce(q: Tensor, k: Tensor, hard: list[Tensor], temperature: float, weight: float) -> float:
    losses = []
    for i, query in enumerate(q):
        terms = [float(query @ key) / temperature for key in k]
        for rows in hard:
            terms += [float(query @ row) / temperature + (weight if i == j else 0) for j, row in enumerate(rows)]
        losses.append(math.log(sum(map(math.exp, terms))) - terms[i])
    return sum(losses) / len(losses)


@pytest.mark.parametrize("hard", [0, 1, 2])
def test_hard_negatives_are_of_all_queries_and_the_own_one_is_weighted(hard: int) -> None:
    q, k, *rows = (unit(5, 4, seed) for seed in range(2 + hard))
    for weight in (0.0, 1.5, -3.0):
        got = float(hard_info_nce(q, k, *rows, temperature=0.2, weight=weight))
        assert got == pytest.approx(slow_hard_info_nce(q, k, rows, 0.2, weight))
    equal = unit(1, 4, 0).repeat(8, 1)
    want = math.log(8 * (1 + hard))
    assert float(hard_info_nce(equal, equal, *[equal] * hard, temperature=0.05)) == pytest.approx(want)


def test_hard_negatives_without_any_are_info_nce_and_groups_leave_the_own_one() -> None:
    q, k, h = (unit(6, 4, seed) for seed in range(3))
    group = torch.tensor([0, 0, MISSING, 1, 1, MISSING])
    for ids in (None, group):
        want = info_nce_batch(q, k, temperature=0.05, group=ids)
        torch.testing.assert_close(hard_info_nce(q, k, temperature=0.05, group=ids), want)
    shuffle = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    want = hard_info_nce(q, k, h, temperature=0.2, weight=0.7)
    torch.testing.assert_close(hard_info_nce(q[shuffle], k[shuffle], h[shuffle], temperature=0.2, weight=0.7), want)
    allowed = (group[:, None] != group) | (group < 0) | torch.eye(6, dtype=torch.bool)
    logits = torch.cat([q @ k.T, q @ h.T], 1) / 0.2
    want = F.cross_entropy(logits.masked_fill(~allowed.repeat(1, 2), -math.inf), torch.arange(6))
    torch.testing.assert_close(hard_info_nce(q, k, h, temperature=0.2, group=group), want)


@pytest.mark.parametrize(("n", "temperature"), [(6, 0.1), (1100, 0.1), (6, 0.01)])  # blocks of 512; no maximum, one
def test_clip_takes_both_directions(n: int, temperature: float) -> None:
    q, k = unit(n, 4, 0).requires_grad_(), unit(n, 4, 1).requires_grad_()
    logits, own = q @ k.T / temperature, torch.arange(n)
    want = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    got = clip(q, k, temperature=temperature)
    torch.testing.assert_close(got, want)
    for a, b in zip(torch.autograd.grad(got, [q, k]), torch.autograd.grad(want, [q, k]), strict=True):
        torch.testing.assert_close(a, b)
    group = torch.arange(n) // 2
    one, other = (info_nce_batch(x, y, temperature=temperature, group=group) for x, y in ((q, k), (k, q)))
    torch.testing.assert_close(clip(q, k, temperature=temperature, group=group), (one + other) / 2)
    equal = unit(1, 4, 0).repeat(8, 1)
    assert float(clip(equal, equal, temperature=temperature)) == pytest.approx(math.log(8))


def test_clip_does_not_feel_which_side_is_first_nor_the_order_of_pairs_and_a_larger_scale_helps_what_is_right() -> None:
    q, k = unit(7, 4, 0), unit(7, 4, 1)
    want, order = clip(q, k, temperature=0.2), torch.randperm(7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(clip(k, q, temperature=0.2), want)
    torch.testing.assert_close(clip(q[order], k[order], temperature=0.2), want)
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(clip(q, q, temperature=(-scale).exp()), scale)
    assert slope < 0


def slow_siglip(q: Tensor, k: Tensor, temperature: float, bias: float, group: list[int]) -> float:
    total = 0.0
    for i, query in enumerate(q):
        for j, key in enumerate(k):
            if i != j and group[i] == group[j] != MISSING:
                continue
            sign = 1 if i == j else -1
            total -= math.log(1 / (1 + math.exp(-sign * (float(query @ key) / temperature + bias))))
    return total / len(q)


@pytest.mark.parametrize("block", [4, 2**22])
@pytest.mark.parametrize("group", [[MISSING] * 5, [0, 0, 1, MISSING, MISSING]])
def test_siglip_judges_each_pair_by_itself(group: list[int], block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairwise, "BLOCK", block)
    q, k = unit(5, 4, 0).requires_grad_(), unit(5, 4, 1).requires_grad_()
    bias = torch.tensor(-1.0, dtype=torch.float64, requires_grad=True)
    known = None if group[0] == MISSING else torch.tensor(group)
    got = siglip(q, k, temperature=0.2, bias=bias, group=known)
    assert got.item() == pytest.approx(slow_siglip(q.detach(), k.detach(), 0.2, -1.0, group))
    assert torch.autograd.gradcheck(
        lambda q, k, bias: siglip(q, k, temperature=0.2, bias=bias, group=known), (q, k, bias)
    )


def test_with_a_very_low_bias_siglip_is_its_positive_terms_alone() -> None:
    q, k = unit(5, 4, 0), unit(5, 4, 1)
    want = F.softplus(40 - (q * k).sum(1) / 0.2).mean()
    torch.testing.assert_close(siglip(q, k, temperature=0.2, bias=-40.0), want)


def test_half_precision_and_small_temperatures_stay_finite() -> None:
    z1, z2 = (unit(9, 8, s).to(torch.bfloat16).requires_grad_() for s in (0, 1))
    for temperature in (0.01, 10.0):
        for value in (
            nt_xent(z1, z2, temperature=temperature),
            info_nce(z1, z2, z2.detach(), temperature=temperature),
            info_nce_batch(z1, z2, temperature=temperature),
            clip(z1, z2, temperature=temperature),
            siglip(z1, z2, temperature=temperature, bias=-10.0),
        ):
            assert value.isfinite()
            assert torch.autograd.grad(value, z1)[0].isfinite().all()


def _nt_xent(z1: Tensor, z2: Tensor) -> Tensor:
    return nt_xent(normalize(z1), normalize(z2), temperature=0.2)


def _nt_xent_queue(z1: Tensor, z2: Tensor) -> Tensor:
    queue = unit(20, 4, 9).to(z1.dtype), torch.arange(20)
    return nt_xent(normalize(z1), normalize(z2), temperature=0.2, queue=queue)


def _nt_xent_small_temperature(z1: Tensor, z2: Tensor) -> Tensor:
    return nt_xent(normalize(z1), normalize(z2), temperature=0.02)


def _info_nce(q: Tensor, k: Tensor) -> Tensor:
    return info_nce(normalize(q), normalize(k).detach(), unit(20, 4, 9).to(q.dtype), temperature=0.2) + 0 * k.sum()


def _info_nce_batch(q: Tensor, k: Tensor) -> Tensor:
    return info_nce_batch(normalize(q), normalize(k), temperature=0.2)


@pytest.mark.parametrize("loss", [_nt_xent, _nt_xent_queue, _nt_xent_small_temperature, _info_nce, _info_nce_batch])
def test_two_ranks(two_ranks: Pool, loss) -> None:  # type: ignore[no-untyped-def]
    hold_ranks_to_one(two_ranks, loss, unit(8, 4, 0), unit(8, 4, 1))
