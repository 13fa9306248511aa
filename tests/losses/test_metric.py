from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import combinations, product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar import distributed
from nearfar.batch import MISSING
from nearfar.losses import metric
from nearfar.losses.metric import n_pairs, next_of_class, pairs, triplet
from nearfar.losses.pairwise import info_nce_batch
from nearfar.losses.supervised import supcon
from tests.losses.ranks import hold_ranks_to_one, unit
from tests.two_ranks import Pool

LABEL = [0, 1, 1, 0, MISSING, 1, 2, MISSING]
GROUP = [3, 3, 4, MISSING, 3, 4, 3, MISSING]


def same(a: int, b: int) -> bool:
    return a == b and a != MISSING


def slow_pairs(n: int, label: list[int], group: list[int]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The ordered pairs of rows of two views that are positive, and those that are negative."""
    positive, negative = [], []
    for i, j in product(range(2 * n), repeat=2):
        a, b = i % n, j % n
        if a == b or same(label[a], label[b]):
            positive += [(i, j)] if i != j else []
        elif not same(group[a], group[b]):
            negative.append((i, j))
    return positive, negative


def slow_triplets(
    z: Tensor, label: list[int], group: list[int], m: float, *, soft: bool, squared: bool
) -> Iterator[tuple[int, float, float, float]]:
    """Every triplet: its anchor, d_ap, d_an and its loss."""
    positive, negative = slow_pairs(len(label), label, group)
    for (i, p), (j, n) in product(positive, negative):
        if i == j:
            near, far = (math.dist(z[i].tolist(), z[other].tolist()) for other in (p, n))
            near, far = (near**2, far**2) if squared else (near, far)
            yield i, near, far, math.log(1 + math.exp(near - far)) if soft else max(0.0, near - far + m)


def mean(values: list[float]) -> float:
    return sum(values) / max(len(values), 1)


@pytest.mark.parametrize("group", [GROUP, [MISSING] * 8])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("squared", [False, True])
def test_triplets_are_those_of_a_loop(group: list[int], soft: bool, squared: bool) -> None:
    z1, z2, m = unit(8, 3, 0), unit(8, 3, 1), 0.3
    every = list(slow_triplets(torch.cat([z1, z2]), LABEL, group, m, soft=soft, squared=squared))
    mined: dict[str, list[float]] = {
        "all": [loss for *_, loss in every],
        "semi_hard": [loss for _, near, far, loss in every if near < far < near + m],
        "hard": [loss for _, near, far, loss in every if far <= near],
        "batch_hard": [max(loss for i, _, _, loss in every if i == a) for a in {i for i, *_ in every}],
    }
    assert len(mined["all"]) > len(mined["semi_hard"]) > 0
    assert len(mined["hard"]) > 0
    for mining, losses in mined.items():
        given: dict[str, Any] = {"margin": m, "mining": mining, "soft": soft, "squared": squared}
        given |= {"group": torch.tensor(group)}
        got = triplet([z1, z2], torch.tensor(LABEL), **given)
        assert float(got) == pytest.approx(mean(losses), abs=1e-9), mining
        active = triplet([z1, z2], torch.tensor(LABEL), active=True, **given)
        assert float(active) == pytest.approx(mean([loss for loss in losses if loss > 0]), abs=1e-9), mining


def test_of_each_anchor_the_hardest_is_no_less_than_the_mean() -> None:
    for seed in range(5):
        z, label = [unit(8, 3, seed), unit(8, 3, 50 + seed)], torch.arange(8) % 3
        assert triplet(z, label, margin=0.2, mining="batch_hard") >= triplet(z, label, margin=0.2, mining="all")


def test_semi_hard_triplets_are_active_and_hard_ones_are_others() -> None:
    z1, z2, label, m = unit(8, 3, 0), unit(8, 3, 1), torch.arange(8) % 3, 0.3
    of = lambda mining, **more: float(triplet([z1, z2], label, margin=m, mining=mining, **more))
    # The active ones are those two: their mean lies between, for a semi-hard one is below the margin, a hard one above.
    assert 0 < of("semi_hard") < m < of("hard")
    assert of("semi_hard") < of("all", active=True) < of("hard")
    assert of("semi_hard", active=True) == of("semi_hard")


@pytest.mark.parametrize("mining", ["batch_hard", "semi_hard", "hard", "all"])
def test_rows_that_lie_apart_by_the_margin_have_no_loss_and_no_gradient(mining: Any) -> None:
    corners = torch.eye(3, dtype=torch.float64).repeat(2, 1).requires_grad_()
    loss = triplet([corners, corners], torch.arange(6) % 3, margin=1.4, mining=mining, active=True)
    assert loss == 0
    assert not torch.autograd.grad(loss, corners)[0].any()


@pytest.mark.parametrize("mining", ["batch_hard", "hard", "all"])
@pytest.mark.parametrize("squared", [False, True])
def test_rows_that_are_all_alike_have_the_margin_for_a_loss(mining: Any, squared: bool) -> None:
    z = unit(1, 4, 0).repeat(6, 1).requires_grad_()
    loss = triplet([z, z], torch.arange(6) % 3, margin=0.37, mining=mining, squared=squared)
    assert loss.item() == pytest.approx(0.37)
    assert torch.autograd.grad(loss, z)[0].isfinite().all()
    soft = triplet([z, z], torch.arange(6) % 3, margin=0.37, mining=mining, squared=squared, soft=True)
    assert soft.item() == pytest.approx(math.log(2))


def test_rows_that_are_nearly_alike_have_nearly_the_margin_where_semi_hard_ones_are_mined() -> None:
    z = F.normalize(torch.ones(6, 4, dtype=torch.float64) + 1e-3 * unit(6, 4, 0))
    assert triplet([z, z], torch.arange(6) % 3, margin=0.2, mining="semi_hard").item() == pytest.approx(0.2, rel=0.01)


def test_without_a_positive_or_a_negative_there_is_no_triplet_and_half_of_the_pairs() -> None:
    z = unit(4, 3, 0).requires_grad_()
    one_class, no_two = torch.zeros(4, dtype=torch.long), torch.arange(4)
    for label in (one_class, no_two):
        for mining in ("batch_hard", "semi_hard", "hard", "all"):
            value = triplet([z], label, margin=0.3, mining=mining, soft=True)
            assert value == 0
            assert not torch.autograd.grad(value, z)[0].any()
    distances = [math.dist(a, b) for a, b in combinations(z.tolist(), 2)]
    assert pairs([z], one_class, margin=0.3).item() == pytest.approx(mean([d**2 for d in distances]))
    assert pairs([z], no_two, margin=2.0).item() == pytest.approx(mean([(2 - d) ** 2 for d in distances]))


@pytest.mark.parametrize("mining", ["semi_hard", "hard", "all"])
def test_some_triplets_at_a_time_are_all_of_them(mining: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    z = [unit(8, 3, seed).requires_grad_() for seed in (0, 1)]
    losses = [triplet(z, torch.tensor(LABEL), margin=0.3, mining=mining)]
    for most in (1, 40):
        monkeypatch.setattr(metric, "TRIPLETS", most)
        losses.append(triplet(z, torch.tensor(LABEL), margin=0.3, mining=mining))
    want, *gradients = (torch.cat(torch.autograd.grad(loss, z)) for loss in losses)
    for loss, gradient in zip(losses[1:], gradients, strict=True):
        torch.testing.assert_close(loss, losses[0])
        torch.testing.assert_close(gradient, want)


def test_a_class_of_one_sample_is_skipped_by_triplets_as_an_anchor() -> None:
    z, label = unit(5, 3, 0), torch.tensor([0, 0, 1, 1, 2])
    every = [
        (math.dist(z[i].tolist(), z[p].tolist()), min(math.dist(z[i].tolist(), z[n].tolist()) for n in others))
        for i, p, others in ((0, 1, (2, 3, 4)), (1, 0, (2, 3, 4)), (2, 3, (0, 1, 4)), (3, 2, (0, 1, 4)))
    ]
    want = mean([max(0.0, near - far + 0.5) for near, far in every])
    assert float(triplet([z], label, margin=0.5, mining="batch_hard")) == pytest.approx(want)


@pytest.mark.parametrize("group", [GROUP, [MISSING] * 8])
@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("active", [False, True])
def test_pairs_are_those_of_a_loop(group: list[int], linear: bool, active: bool) -> None:
    z1, z2 = unit(8, 3, 0), unit(8, 3, 1)
    rows = torch.cat([z1, z2]).tolist()
    positive, negative = slow_pairs(8, LABEL, group)
    pull = [max(0.0, math.dist(rows[i], rows[j]) - 0.4) for i, j in positive]
    push = [max(0.0, 1.1 - math.dist(rows[i], rows[j])) for i, j in negative]
    sums = 0.0
    for terms in (pull, push):
        terms = [term for term in terms if term > 0] if active else terms
        sums += mean(terms if linear else [term**2 for term in terms])
    given: dict[str, Any] = {"linear": linear, "active": active, "group": torch.tensor(group)}
    got = pairs([z1, z2], torch.tensor(LABEL), margin=1.1, positive_margin=0.4, **given)
    assert float(got) == pytest.approx(sums, abs=1e-9)


def test_pairs_of_rows_in_corners_have_no_loss_and_of_equal_rows_the_square_of_the_margin() -> None:
    corners = torch.eye(3, dtype=torch.float64).repeat(2, 1)
    assert float(pairs([corners], torch.arange(6) % 3, margin=1.41)) == pytest.approx(0, abs=1e-10)
    z = corners[:1].repeat(6, 1).requires_grad_()
    loss = pairs([z], torch.arange(6) % 3, margin=0.7)
    assert loss.item() == pytest.approx(0.49, abs=1e-5)
    assert torch.autograd.grad(loss, z)[0].isfinite().all()
    assert pairs([z], torch.arange(6) % 3, margin=0.7, linear=True).item() == pytest.approx(0.7, abs=1e-5)


def _all(z1: Tensor, z2: Tensor, label: Tensor) -> list[Tensor]:
    order = torch.arange(len(label))
    return [
        triplet([z1, z2], label, margin=0.3),
        triplet([z1, z2], label, margin=0.3, mining="batch_hard"),
        triplet([z1, z2], label, margin=0.3, mining="all"),
        pairs([z1, z2], label, margin=1.1),
        n_pairs(z1, z2, label, order),
    ]


def test_turned_rows_have_the_same_loss() -> None:
    z1, z2, label = unit(8, 4, 0), unit(8, 4, 1), torch.tensor(LABEL)
    turn = torch.linalg.qr(unit(4, 4, 2))[0]
    for got, want in zip(_all(z1 @ turn, z2 @ turn, label), _all(z1, z2, label), strict=True):
        torch.testing.assert_close(got, want)


def test_permuted_samples_have_the_same_loss() -> None:
    z1, z2, label = unit(8, 4, 0), unit(8, 4, 1), torch.tensor(LABEL)
    shuffle = torch.tensor([3, 0, 7, 1, 6, 2, 5, 4])
    got = _all(z1[shuffle], z2[shuffle], label[shuffle])[:4]
    for a, b in zip(got, _all(z1, z2, label)[:4], strict=True):
        torch.testing.assert_close(a, b)


def test_supcon_of_one_positive_and_one_negative_at_one_distance_pulls_as_a_triplet_does() -> None:
    # Where the negative lies opposite the positive, the positive has no loss of its own.
    positive = torch.eye(3, dtype=torch.float64)[0]
    anchor = torch.tensor([0.0, 0.6, 0.8], dtype=torch.float64, requires_grad=True)
    z, label = torch.stack([anchor, positive, -positive]), torch.tensor([0, 0, 1])
    losses = supcon([z], label, temperature=0.05), triplet([z], label, margin=0.2, squared=True, mining="all")
    one, other = (F.normalize(torch.autograd.grad(loss, anchor, retain_graph=True)[0], dim=0) for loss in losses)
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(other, -positive)


def slow_turns(ids: list[int], order: list[int]) -> tuple[list[int], list[int]]:
    place, following = [0] * len(ids), [0] * len(ids)
    for name in set(ids):
        members = [row for row in order if ids[row] == name]
        for k, row in enumerate(members):
            place[row], following[row] = k, members[(k + 1) % len(members)]
    return place, following


@pytest.mark.parametrize("ids", [[0, 1, 0, 2, 0, 1, -9], [4] * 7, [-7, -1, -2, 3, 2, 5, 6]])
def test_turns(ids: list[int]) -> None:
    for seed in range(4):
        order = torch.randperm(7, generator=torch.Generator().manual_seed(seed))
        place, following = next_of_class(torch.tensor(ids), order)
        assert (place.tolist(), following.tolist()) == slow_turns(ids, order.tolist())
        assert [ids[row] for row in following.tolist()] == ids
        assert sorted(following.tolist()) == list(range(7)), "every row is the positive of one"


def slow_n_pairs(a: Tensor, p: Tensor, label: list[int], order: list[int], group: list[int]) -> float:
    ids = [name if name != MISSING else -10 - i for i, name in enumerate(label)]
    place, following = slow_turns(ids, order)
    losses = []
    for i, anchor in enumerate(a):
        s = [float(anchor @ p[following[j]]) for j in range(len(a))]
        others = [j for j in range(len(a)) if j != i and place[j] == place[i]]
        assert all(ids[j] != ids[i] for j in others)
        others = [j for j in others if not same(group[i], group[following[j]])]
        losses.append(math.log(1 + sum(math.exp(s[j] - s[i]) for j in others)))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("group", [GROUP, [MISSING] * 8])
def test_n_pairs_are_those_of_a_loop(group: list[int]) -> None:
    a, p = 3 * unit(8, 3, 0), 2 * unit(8, 3, 1)
    for seed in range(3):
        order = torch.randperm(8, generator=torch.Generator().manual_seed(seed))
        want = slow_n_pairs(a, p, LABEL, order.tolist(), group)
        got = n_pairs(a, p, torch.tensor(LABEL), order, group=torch.tensor(group))
        assert float(got) == pytest.approx(want)
        penalized = n_pairs(a, p, torch.tensor(LABEL), order, group=torch.tensor(group), penalty=0.1)
        assert float(penalized) == pytest.approx(want + 0.1 * (9 + 4) / 2)


def test_n_pairs_of_distinct_classes_are_cross_entropy_and_info_nce_in_one_direction() -> None:
    a, p = unit(6, 4, 0).requires_grad_(), unit(6, 4, 1).requires_grad_()
    got = n_pairs(a, p, torch.arange(6), torch.randperm(6, generator=torch.Generator().manual_seed(0)))
    for want in (F.cross_entropy(a @ p.T, torch.arange(6)), info_nce_batch(a, p, temperature=1.0)):
        torch.testing.assert_close(got, want)
        for x, y in zip(*(torch.autograd.grad(v, [a, p], retain_graph=True) for v in (got, want)), strict=True):
            torch.testing.assert_close(x, y)
    one_class = n_pairs(a, p, torch.zeros(6, dtype=torch.long), torch.arange(6))
    assert float(one_class.detach()) == 0


def _label(z: Tensor) -> Tensor:
    """Classes that straddle the ranks; some samples have none."""
    index = distributed.columns(z)
    return torch.where(index % 4 == 1, MISSING, index % 3)


def _group(z: Tensor) -> Tensor:
    return torch.where(distributed.columns(z) % 5 == 0, MISSING, distributed.columns(z) // 3)


def _batch_hard(z1: Tensor, z2: Tensor) -> Tensor:
    return triplet([z1, z2], _label(z1), margin=0.3, mining="batch_hard", active=True, group=_group(z1))


def _semi_hard(z1: Tensor, z2: Tensor) -> Tensor:
    return triplet([z1, z2], _label(z1), margin=0.3, squared=True)


def _every(z1: Tensor, z2: Tensor) -> Tensor:
    return triplet([z1, z2], _label(z1), margin=0.3, mining="all", soft=True)


def _pairs(z1: Tensor, z2: Tensor) -> Tensor:
    return pairs([z1, z2], _label(z1), margin=1.2, active=True, group=_group(z1))


def _n_pairs(z1: Tensor, z2: Tensor) -> Tensor:
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    return n_pairs(z1, z2, _label(z1), order, penalty=0.1, group=_group(z1))


@pytest.mark.parametrize("loss", [_batch_hard, _semi_hard, _every, _pairs, _n_pairs])
def test_two_ranks(two_ranks: Pool, loss: Callable[..., Tensor]) -> None:
    hold_ranks_to_one(two_ranks, loss, unit(8, 4, 0), unit(8, 4, 1))


def test_gradients() -> None:
    label = torch.tensor(LABEL)
    z = [(unit(8, 3, seed) * 1.3).requires_grad_() for seed in (0, 1)]

    def all_of_them(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        return tuple(_all(F.normalize(a), F.normalize(b), label))

    assert torch.autograd.gradcheck(all_of_them, z)
