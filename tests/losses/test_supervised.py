from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.distributed import local, normalize
from nearfar.losses.pairwise import nt_xent
from nearfar.losses.supervised import share_with_positive, supcon, supcon_in
from tests.losses.ranks import hold_ranks_to_one, unit
from tests.two_ranks import Pool


def slow_supcon(views: list[Tensor], label: list[int], temperature: float, inside: bool) -> tuple[float, float]:
    """The loss, and the part of the anchors that has a positive."""
    rows = [(z, y, sample) for view in views for sample, (z, y) in enumerate(zip(view, label, strict=True))]
    losses = []
    for i, (anchor, y, sample) in enumerate(rows):
        others = [rows[j] for j in range(len(rows)) if j != i]
        positives = [z for z, y2, sample2 in others if sample2 == sample or (y == y2 and y != MISSING)]
        if not positives:
            continue
        denominator = sum(math.exp(float(anchor @ z) / temperature) for z, _, _ in others)
        terms = [math.exp(float(anchor @ z) / temperature) / denominator for z in positives]
        if inside:
            losses.append(-math.log(sum(terms) / len(terms)))
        else:
            losses.append(-sum(math.log(t) for t in terms) / len(terms))
    return sum(losses) / max(len(losses), 1), len(losses) / len(rows)


LABELS = [
    [0, 1, 0, 2, 1, 0],
    [0, 0, 0, 0, 0, 0],
    [0, 1, 2, 3, 4, 5],
    [MISSING] * 6,
    [MISSING, 0, MISSING, 0, 1, 7],
]


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_both_forms(label: list[int], count: int) -> None:
    views = [unit(6, 4, seed) for seed in range(count)]
    for loss, inside in ((supcon, False), (supcon_in, True)):
        want, anchors = slow_supcon(views, label, 0.2, inside)
        assert float(loss(views, torch.tensor(label), temperature=0.2)) == pytest.approx(want, abs=1e-12)
        assert float(share_with_positive(torch.tensor(label), count)) == pytest.approx(anchors)


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("grouped", [False, True])
def test_a_queue_has_further_candidates_and_those_of_a_class_are_positives(label: list[int], grouped: bool) -> None:
    views, queue, tau = [unit(6, 4, 0), unit(6, 4, 1)], unit(7, 4, 2), 0.2
    of_queue, queue_group = [0, 1, MISSING, 0, 5, 9, MISSING], [3, MISSING, 1, 1, 3, 1, MISSING]
    group = [1, 1, 3, MISSING, 3, 1] if grouped else [MISSING] * 6
    same = lambda a, b: a == b and a != MISSING
    sums = {False: 0.0, True: 0.0}
    for i in range(12):
        mine, anchor = i % 6, views[i // 6][i % 6]
        others = [(views[j // 6][j % 6], j % 6 == mine, label[j % 6], group[j % 6]) for j in range(12) if j != i]
        others += [(x, False, y, g) for x, y, g in zip(queue, of_queue, queue_group, strict=True)]
        found = [(math.exp(float(anchor @ x) / tau), own or same(label[mine], y), g) for x, own, y, g in others]
        total = sum(value for value, positive, g in found if positive or not same(group[mine], g))
        terms = [value / total for value, positive, _ in found if positive]
        sums[False] -= sum(map(math.log, terms)) / len(terms) / 12
        sums[True] -= math.log(sum(terms) / len(terms)) / 12
    for loss, inside in ((supcon, False), (supcon_in, True)):
        ids = torch.tensor(group) if grouped else None
        given = queue, torch.tensor(of_queue), torch.tensor(queue_group)
        got = loss(views, torch.tensor(label), temperature=tau, group=ids, queue=given)
        assert float(got) == pytest.approx(sums[inside], abs=1e-12)
    empty = queue[:0], torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long)
    for loss in (supcon, supcon_in):
        want = loss(views, torch.tensor(label), temperature=tau)
        torch.testing.assert_close(loss(views, torch.tensor(label), temperature=tau, queue=empty), want)


def test_a_queue_beside_some_of_the_samples_is_that_beside_them_alone() -> None:
    views, label, some = [unit(6, 4, 0), unit(6, 4, 1)], torch.tensor(LABELS[4]), torch.arange(6) % 2 == 0
    queue = unit(7, 4, 2), torch.arange(7) - 1, torch.full((7,), MISSING)
    got = supcon(views, label, temperature=0.2, among=some, queue=queue)
    want = supcon([view[some] for view in views], label[some], temperature=0.2, queue=queue)
    torch.testing.assert_close(got, want)


def test_unlabeled_and_unique_labels_are_nt_xent() -> None:
    views = [unit(6, 4, 0), unit(6, 4, 1)]
    want = nt_xent(*views, temperature=0.1)
    for label in (torch.full((6,), MISSING), torch.arange(6)):
        torch.testing.assert_close(supcon(views, label, temperature=0.1), want)
        torch.testing.assert_close(supcon_in(views, label, temperature=0.1), want)


def test_in_is_never_above_out() -> None:
    for seed in range(5):
        views = [unit(8, 4, 2 * seed), unit(8, 4, 2 * seed + 1)]
        label = torch.arange(8) % 3
        assert supcon_in(views, label, temperature=0.1) <= supcon(views, label, temperature=0.1)


def test_lower_bound_is_the_logarithm_of_the_number_of_positives() -> None:
    # Two classes at the poles: all positives tie and negatives vanish.
    z = torch.tensor([[1.0, 0], [1, 0], [1, 0], [-1, 0], [-1, 0], [-1, 0]], dtype=torch.float64)
    label = torch.tensor([0, 0, 0, 1, 1, 1])
    for temperature in (0.02, 0.07):
        assert float(supcon([z, z], label, temperature=temperature)) == pytest.approx(math.log(5), abs=1e-9)


def test_one_class() -> None:
    views = [unit(5, 4, 0), unit(5, 4, 1)]
    s = torch.cat(views) @ torch.cat(views).T / 0.3
    off = ~torch.eye(10, dtype=torch.bool)
    rows = s[off].view(10, 9)
    want = (rows.logsumexp(1) - rows.mean(1)).mean()
    torch.testing.assert_close(supcon(views, torch.zeros(5, dtype=torch.long), temperature=0.3), want)


def test_base_temperature_scales() -> None:
    views, label = [unit(6, 4, 0), unit(6, 4, 1)], torch.arange(6) % 2
    for loss in (supcon, supcon_in):
        want = loss(views, label, temperature=0.1) * (0.1 / 0.07)
        torch.testing.assert_close(loss(views, label, temperature=0.1, base_temperature=0.07), want)


def test_order_views_and_rotation_do_not_matter() -> None:
    views, label = [unit(6, 4, 0), unit(6, 4, 1)], torch.tensor([0, 1, 0, MISSING, 1, 2])
    rotation = torch.linalg.qr(unit(4, 4, 2))[0]
    shuffle = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    for loss in (supcon, supcon_in):
        want = loss(views, label, temperature=0.1)
        torch.testing.assert_close(loss(views[::-1], label, temperature=0.1), want)
        torch.testing.assert_close(loss([v[shuffle] for v in views], label[shuffle], temperature=0.1), want)
        torch.testing.assert_close(loss([v @ rotation for v in views], label, temperature=0.1), want)


def test_rows_without_positive_have_no_say() -> None:
    # One view: the singleton is no anchor, but still pushes the others.
    z = unit(3, 4, 0).requires_grad_()
    loss = supcon([z], torch.tensor([0, 0, 1]), temperature=0.5)
    assert loss.isfinite()
    assert torch.autograd.grad(loss, z)[0].isfinite().all()
    alone = unit(1, 4, 0).requires_grad_()
    loss = supcon([alone], torch.tensor([3]), temperature=0.5)
    assert float(loss.detach()) == 0
    assert (torch.autograd.grad(loss, alone)[0] == 0).all()
    loss = supcon_in([alone], torch.tensor([3]), temperature=0.5)
    assert float(loss.detach()) == 0
    assert (torch.autograd.grad(loss, alone)[0] == 0).all()


def test_gradient_of_one_anchor_is_that_of_the_paper() -> None:
    # Row 0 is the only anchor with a positive; its gradient through the other anchors is cut by detaching them.
    keys = unit(6, 4, 0)
    label = torch.tensor([0, 0, 0, 1, 2, 3])
    anchor = keys[:1].clone().requires_grad_()
    tau = 0.2
    p = (anchor.detach() @ keys[1:].T / tau).softmax(1)  # 1 x 5
    want = (p @ keys[1:] - keys[1:3].mean(0)) / tau
    # Three anchors share class 0, so the mean is over 3 rows.
    z = torch.cat([anchor, keys[1:]])
    full = torch.autograd.grad(supcon([z], label, temperature=tau) * 3, anchor)[0]
    others = torch.zeros_like(full)
    for i in (1, 2):
        s = z.detach().clone().requires_grad_()
        row = torch.cat([s[:i], s[i + 1 :]])
        positives = [j for j in range(3) if j != i]
        value = (s[i] @ row.T / tau).logsumexp(0) - sum(s[i] @ s[j] for j in positives) / 2 / tau
        others += torch.autograd.grad(value, s)[0][:1]
    torch.testing.assert_close(full - others, want)


AMONG = torch.tensor([True, False, True, True, False, True, True, False])


def test_among_some_is_the_loss_of_these_alone() -> None:
    views, label = [unit(8, 4, 0).requires_grad_(), unit(8, 4, 1)], torch.tensor([0, 1, 0, MISSING, 1, 2, 7, MISSING])
    group = torch.tensor([3, 3, 3, 4, 4, 4, MISSING, MISSING])
    for ids in (None, group):
        few = None if ids is None else ids[AMONG]
        want = supcon([view[AMONG] for view in views], label[AMONG], temperature=0.2, group=few)
        got = supcon(views, label, temperature=0.2, group=ids, among=AMONG)
        torch.testing.assert_close(got, want)
        slopes = [torch.autograd.grad(loss, views[0])[0] for loss in (got, want)]
        torch.testing.assert_close(*slopes)
        assert not slopes[0][~AMONG].any()
    every = supcon(views, label, temperature=0.2, among=torch.ones(8, dtype=torch.bool))
    torch.testing.assert_close(every, supcon(views, label, temperature=0.2))


def test_among_none_there_is_nothing_to_lose() -> None:
    views, label = [unit(6, 4, 0).requires_grad_(), unit(6, 4, 1)], torch.arange(6)
    for group in (None, torch.zeros(6, dtype=torch.long)):
        loss = supcon(views, label, temperature=0.2, among=torch.zeros(6, dtype=torch.bool), group=group)
        assert float(loss.detach()) == 0
        assert not torch.autograd.grad(loss, views[0])[0].any()


def test_the_mean_is_over_the_anchors_and_all_rows_are_candidates() -> None:
    views, label = [unit(8, 4, 0), unit(8, 4, 1)], torch.tensor([0, 1, 0, MISSING, 1, 2, 7, MISSING])
    some = torch.tensor([True, False, True, True, False, True, False, False])
    for among, few in ((None, some), (AMONG, some & AMONG)):
        count = 8 if among is None else int(among.sum())
        whole, one, other = (
            supcon(views, label, temperature=0.2, among=among, anchors=anchors) for anchors in (None, some, ~some)
        )
        torch.testing.assert_close(whole * count, one * few.sum() + other * (count - few.sum()))
    z = [view.clone().requires_grad_() for view in views]
    slope = torch.autograd.grad(supcon(z, label, temperature=0.2, anchors=some), z[0])[0]
    assert slope[~some].any(), "those that are no anchors push the others"


def _supcon(z1: Tensor, z2: Tensor, label: Tensor) -> Tensor:
    return supcon([normalize(z1), normalize(z2)], label, temperature=0.2)


def _supcon_in(z1: Tensor, z2: Tensor, label: Tensor) -> Tensor:
    return supcon_in([normalize(z1), normalize(z2)], label, temperature=0.2)


def _one_view(z1: Tensor, z2: Tensor, label: Tensor) -> Tensor:
    return supcon([normalize(z1)], label, temperature=0.2) + 0 * z2.sum()


def _among(z1: Tensor, z2: Tensor, label: Tensor) -> Tensor:
    return supcon([normalize(z1), normalize(z2)], label, temperature=0.2, among=local(AMONG))


def _among_rows_of_one_rank(z1: Tensor, z2: Tensor, label: Tensor) -> Tensor:
    group = torch.zeros_like(label)
    return supcon([normalize(z1), normalize(z2)], label, temperature=0.2, group=group, among=local(torch.arange(8) < 4))


@pytest.mark.parametrize("loss", [_supcon, _supcon_in, _one_view, _among, _among_rows_of_one_rank])
def test_two_ranks(two_ranks: Pool, loss) -> None:  # type: ignore[no-untyped-def]
    # Classes span the ranks; anchors with a positive are not the same number on both.
    label = torch.tensor([0, 1, 0, MISSING, 1, 2, 7, MISSING])
    hold_ranks_to_one(two_ranks, loss, unit(8, 4, 0), unit(8, 4, 1), label)


def test_share_with_positive_on_two_ranks(two_ranks: Pool) -> None:
    assert two_ranks.run(_share) == [0.5, 0.5]


def _share() -> float:
    return float(share_with_positive(local(torch.tensor([0, 1, 2, MISSING, 0, 1, 7, MISSING])), 1))
