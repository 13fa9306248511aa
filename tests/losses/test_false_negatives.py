from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.distributed import local, normalize, rank
from nearfar.losses import false_negatives
from nearfar.losses.false_negatives import (
    detected,
    detected_columns,
    detection,
    find_alike,
    info_nce_found,
    nt_xent_found,
    same_class,
)
from nearfar.losses.pairwise import info_nce, nt_xent
from nearfar.losses.supervised import supcon
from tests.losses.ranks import hold_ranks_to_one, unit
from tests.two_ranks import Pool

FOUND = torch.tensor([[3, 9, -1], [-1, -1, -1], [6, 0, 5], [7, -1, -1], [8, 2, -1]])
"""Of 5 samples and two views: columns of other samples."""


def three(n: int = 5) -> list[Tensor]:
    return [unit(n, 4, seed) for seed in range(3)]


def slow_find(views: list[Tensor], support: list[Tensor], top: int, threshold: float, score: str) -> list[set[int]]:
    n, rows = len(views[0]), torch.cat(views)
    found = []
    for i in range(n):
        scores = {}
        for j, row in enumerate(rows):
            if j % n != i:
                seen = [float(part[i] @ row) for part in support]
                scores[j] = max(seen) if score == "max" else sum(seen) / len(seen)
        best = sorted(scores, key=lambda j: -scores[j])[:top]
        found.append({j for j in best if scores[j] > threshold})
    return found


def sets(found: Tensor) -> list[set[int]]:
    return [set(row.tolist()) - {-1} for row in found]


@pytest.mark.parametrize("score", ["max", "mean"])
@pytest.mark.parametrize(("top", "threshold"), [(1, -1.0), (3, 0.2), (3, 0.6), (50, 0.3), (4, 2.0)])
def test_what_is_found(top: int, threshold: float, score: str) -> None:
    a, b, c = three(7)
    got = find_alike([a, b], [a, b, c], top=top, threshold=threshold, score=score)  # type: ignore[arg-type]
    assert sets(got) == slow_find([a, b], [a, b, c], top, threshold, score)


def test_in_parts_it_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    views = three(7)
    want = find_alike(views, views, top=4, threshold=0.1)
    monkeypatch.setattr("nearfar.losses.false_negatives.ROWS", 3)
    assert torch.equal(find_alike(views, views, top=4, threshold=0.1), want)


def test_more_is_found_with_a_larger_top_and_a_lower_threshold() -> None:
    views = three(8)
    found = [sets(find_alike(views, views, top=top, threshold=t)) for top, t in ((2, 0.95), (2, 0.5), (6, 0.5))]
    for fewer, more in ((0, 1), (1, 2)):
        assert all(a <= b for a, b in zip(found[fewer], found[more], strict=True))
    assert found[0] != found[1] != found[2]


def slow(
    views: list[Tensor],
    found: Tensor,
    tau: float,
    *,
    attract: bool,
    group: list[int] | None = None,
    rows: Tensor | None = None,
    further: tuple[int, ...] = (),
) -> float:
    """rows: what the anchors are contrasted with, if not themselves, and behind them a queue of groups `further`."""
    anchors, n, losses = torch.cat(views), len(views[0]), []
    rows = anchors if rows is None else rows
    groups = group and [*group * len(views), *further]
    for i, anchor in enumerate(anchors):
        mine = set(found[i % n].tolist()) - {-1}
        own = {j for j in range(len(anchors)) if j % n == i % n and j != i}
        apart = {j for j in range(len(rows)) if groups and groups[j] == groups[i] != MISSING}
        positive = own | mine if attract else own
        pushed = positive | (set(range(len(rows))) - {i} - own - mine - apart)
        s = {j: float(anchor @ rows[j]) / tau for j in pushed}
        losses.append(math.log(sum(math.exp(v) for v in s.values())) - sum(s[j] for j in positive) / len(positive))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("attract", [False, True])
@pytest.mark.parametrize("group", [None, [0, 0, MISSING, 1, 0], [2] * 5])
def test_against_a_slow_loop(group: list[int] | None, *, attract: bool) -> None:
    ids = None if group is None else torch.tensor(group)
    for views in (three()[:2], three()):
        got = nt_xent_found(views, FOUND, temperature=0.2, attract=attract, group=ids)
        want = slow(views, FOUND, 0.2, attract=attract, group=group)
        assert float(got) == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize("attract", [False, True])
@pytest.mark.parametrize("group", [None, [0, 0, MISSING, 1, 0]])
def test_other_keys_and_a_queue_against_a_slow_loop(group: list[int] | None, *, attract: bool) -> None:
    views, keys, queue = three()[:2], [unit(5, 4, 5), unit(5, 4, 6)], unit(4, 4, 7)
    found = torch.cat([FOUND, torch.tensor([[12], [-1], [10], [13], [11]])], 1)
    of_queue = (0, MISSING, 1, 2)
    got = nt_xent_found(
        views,
        found,
        temperature=0.2,
        attract=attract,
        group=None if group is None else torch.tensor(group),
        keys=keys,
        queue=queue,
        queue_group=torch.tensor(of_queue),
    )
    rows = torch.cat([*keys, queue])
    want = slow(views, found, 0.2, attract=attract, group=group, rows=rows, further=of_queue)
    assert float(got) == pytest.approx(want, abs=1e-12)


def test_a_queue_is_searched_too_and_a_score_at_the_threshold_is_not_found() -> None:
    views, queue = [torch.eye(3)[[0, 1]], torch.eye(3)[[0, 1]]], torch.tensor([[0.6, 0.8, 0], [0.8, 0.6, 0], [0, 0, 1]])
    for threshold, want in ((0.7, [{5}, {4}]), (0.8, [set(), set()]), (0.5, [{4, 5}, {4, 5}])):
        assert sets(find_alike(views, views, top=9, threshold=threshold, queue=queue)) == want
    of_queue = torch.tensor([1, 0, MISSING])
    found = find_alike(views, views, top=9, threshold=0.5, queue=queue)
    assert detected_columns(found, torch.tensor([0, 1]), 2, of_queue).tolist() == [2, 4, 2]


def test_nothing_found_is_nt_xent_and_everything_left_out_is_zero() -> None:
    z1, z2, _ = three()
    for attract in (False, True):
        got = nt_xent_found([z1, z2], torch.full((5, 2), -1), temperature=0.1, attract=attract)
        torch.testing.assert_close(got, nt_xent(z1, z2, temperature=0.1))
    everything = torch.tensor([[j for j in range(10) if j % 5 != i] for i in range(5)])
    z1.requires_grad_()
    none = nt_xent_found([z1, z2], everything, temperature=0.1)
    assert float(none.detach()) == pytest.approx(0, abs=1e-12)
    assert torch.autograd.grad(none, z1)[0].abs().max() < 1e-12


def test_leaving_out_never_adds() -> None:
    z1, z2, _ = three()
    values = [float(nt_xent_found([z1, z2], FOUND[:, :m], temperature=0.1)) for m in range(4)]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) > 2


def test_with_all_of_the_class_found_attraction_is_supcon() -> None:
    views, label = three(6), torch.tensor([0, 1, 0, 2, 1, 0])
    same = [[j for j in range(18) if label[j % 6] == label[i] and j % 6 != i] for i in range(6)]
    found = torch.tensor([row + [-1] * (6 - len(row)) for row in same])
    got = nt_xent_found(views, found, temperature=0.1, attract=True)
    torch.testing.assert_close(got, supcon(views, label, temperature=0.1))


def test_the_order_of_samples_does_not_matter() -> None:
    views, order = three(7), torch.tensor([3, 0, 6, 2, 1, 5, 4])
    moved = [view[order] for view in views]
    found, other = (find_alike(v, v, top=3, threshold=0.1) for v in (views, moved))
    named = [{(int(order[j % 7]), j // 7) for j in row} for row in sets(other)]
    assert named == [{(j % 7, j // 7) for j in sets(found)[i]} for i in order.tolist()]
    for attract in (False, True):
        one, two = (nt_xent_found(v, f, temperature=0.1, attract=attract) for v, f in ((views, found), (moved, other)))
        torch.testing.assert_close(one, two)


def test_gradients() -> None:
    views = [view.requires_grad_() for view in three()]
    for attract in (False, True):
        assert torch.autograd.gradcheck(
            lambda *v, attract=attract: nt_xent_found(list(v), FOUND, temperature=0.3, attract=attract), views
        )


ALIKE = torch.tensor([0, 3, -1, 0, 2]), torch.tensor([3, 0, 1, 0, -1, 0, 2])
GROUPS = torch.tensor([1, MISSING, 1, 0, 4]), torch.tensor([1, 1, MISSING, 0, 0, 4, 2])


def slow_queue(q: Tensor, k: Tensor, queue: Tensor, tau: float, *, attract: bool, grouped: bool) -> float:
    losses = []
    for i, (query, key) in enumerate(zip(q, k, strict=True)):
        mine = [j for j in range(7) if ALIKE[0][i] == ALIKE[1][j] != MISSING]
        apart = [j for j in range(7) if grouped and GROUPS[0][i] == GROUPS[1][j] != MISSING]
        push = sum(math.exp(float(query @ queue[j]) / tau) for j in range(7) if j not in mine + apart)
        pulled = [key, *(queue[j] for j in mine if attract)]
        s = [float(query @ row) / tau for row in pulled]
        losses.append(sum(math.log(math.exp(v) + push) - v for v in s) / len(s))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("attract", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
def test_a_queue_against_a_slow_loop(*, grouped: bool, attract: bool) -> None:
    q, k, queue = unit(5, 4, 0), unit(5, 4, 1), unit(7, 4, 2)
    groups = GROUPS if grouped else None
    got = info_nce_found(q, k, queue, ALIKE, temperature=0.2, attract=attract, groups=groups)
    want = slow_queue(q, k, queue, 0.2, attract=attract, grouped=grouped)
    assert float(got) == pytest.approx(want, abs=1e-12)
    assert torch.autograd.gradcheck(
        lambda q: info_nce_found(q, k, queue, ALIKE, temperature=0.2, attract=attract, groups=groups),
        q.requires_grad_(),
    )


def test_with_nothing_alike_in_the_queue_it_is_info_nce_and_with_all_it_is_zero() -> None:
    q, k, queue = unit(5, 4, 0).requires_grad_(), unit(5, 4, 1), unit(7, 4, 2)
    alone, none, all_ = torch.arange(5), torch.full((7,), -1), torch.zeros(7, dtype=torch.int64)
    for attract in (False, True):
        got = info_nce_found(q, k, queue, (alone, none), temperature=0.1, attract=attract)
        torch.testing.assert_close(got, info_nce(q, k, queue, temperature=0.1))
        empty = info_nce_found(q, k, queue, (all_[:5], all_), temperature=0.1, attract=attract)
        assert float(empty.detach()) == 0
        assert not torch.autograd.grad(empty, q)[0].any()


def test_leaving_out_a_key_never_adds_and_names_do_not_matter() -> None:
    q, k, queue = unit(5, 4, 0), unit(5, 4, 1), unit(7, 4, 2)
    more = info_nce_found(q, k, queue, ALIKE, temperature=0.1)
    fewer = info_nce_found(q, k, queue, (ALIKE[0], ALIKE[1].masked_fill(ALIKE[1] == 3, 9)), temperature=0.1)
    assert more < fewer < info_nce(q, k, queue, temperature=0.1)
    names = torch.tensor([7, 5, 0, 2, -1])  # the last for those without
    for attract in (False, True):
        one, other = (
            info_nce_found(q, k, queue, ids, temperature=0.1, attract=attract)
            for ids in (ALIKE, (names[ALIKE[0]], names[ALIKE[1]]))
        )
        torch.testing.assert_close(one, other)


def test_pairs_are_counted() -> None:
    generator = torch.Generator().manual_seed(0)
    draw = lambda n, high: torch.randint(-1, high, (n,), generator=generator)
    alike, label = (draw(30, 5), draw(50, 5)), (draw(30, 3), draw(50, 3))
    counts = [0, 0, 0]
    for i in range(30):
        for j in range(50):
            known = min(int(label[0][i]), int(label[1][j])) >= 0
            found = known and bool(alike[0][i] == alike[1][j] >= 0)
            same = known and bool(label[0][i] == label[1][j])
            counts = [a + b for a, b in zip(counts, (found and same, found, same), strict=True)]
    assert detected(alike, label).tolist() == counts
    assert (
        detected((torch.tensor([3]), torch.tensor([3])), (torch.tensor([-1]), torch.tensor([-1]))).tolist() == [0] * 3
    )


@pytest.mark.parametrize("attract", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
def test_long_lists_are_left_out_by_a_mask_to_the_same_end(
    monkeypatch: pytest.MonkeyPatch, *, attract: bool, grouped: bool
) -> None:
    group = torch.tensor([0, 0, MISSING, 1, 1]) if grouped else None
    got = []
    for listed in (0, 16):
        monkeypatch.setattr(false_negatives, "LISTED", listed)
        views = [view.requires_grad_() for view in three()[:2]]
        loss = nt_xent_found(views, FOUND, temperature=0.2, attract=attract, group=group)
        got.append([loss, *torch.autograd.grad(loss, views)])
    torch.testing.assert_close(*got)


def test_the_columns_of_a_class_are_those_of_other_samples() -> None:
    label = torch.tensor([1, 0, 1, MISSING, 0, 1, MISSING])
    found = sets(same_class(label, 2))
    for i, mine in enumerate(label.tolist()):
        others = [j for j in range(14) if j % 7 != i]
        assert found[i] == {j for j in others if mine == int(label[j % 7]) != MISSING}
    assert same_class(torch.tensor([3, 1, 2]), 2).shape == (3, 0)
    assert same_class(torch.full((3,), MISSING), 2).shape == (3, 0)


def test_pairs_in_lists_are_counted_one_by_one() -> None:
    label = torch.tensor([0, 0, 1, MISSING, 1])
    right = told = same = 0
    for i in range(5):
        for j in (j for j in range(10) if j % 5 != i):
            if min(int(label[i]), int(label[j % 5])) == MISSING:
                continue
            same += bool(label[i] == label[j % 5])
            told += j in FOUND[i]
            right += j in FOUND[i] and bool(label[i] == label[j % 5])
    assert detected_columns(FOUND, label, 2).tolist() == [right, told, same]


def test_detection_is_told_in_shares() -> None:
    got = detection(torch.tensor([3, 4, 12]))
    assert {name: float(value) for name, value in got.items()} == {"precision": 0.75, "recall": 0.25}
    none = detection(torch.zeros(3))
    assert [float(value) for value in none.values()] == [0, 0]


def _both(z1: Tensor, z2: Tensor, *, attract: bool) -> Tensor:
    z1, z2 = normalize(z1), normalize(z2)
    found = find_alike([z1, z2], [z1, z2], top=3, threshold=0.3)
    return nt_xent_found([z1, z2], found, temperature=0.2, attract=attract)


def _attract(z1: Tensor, z2: Tensor) -> Tensor:
    return _both(z1, z2, attract=True)


def _eliminate(z1: Tensor, z2: Tensor) -> Tensor:
    return _both(z1, z2, attract=False)


def _oracle(z1: Tensor, z2: Tensor) -> Tensor:
    label = rank() * len(z1) + torch.arange(len(z1))
    z1, z2 = normalize(z1), normalize(z2)
    return nt_xent_found([z1, z2], same_class(label // 3, 2), temperature=0.2)


def _queue(q: Tensor, k: Tensor) -> Tensor:
    alike = rank() * len(q) + torch.arange(len(q)), torch.arange(12) % 9
    queue = unit(12, 4, 5).to(q.dtype)
    return (
        info_nce_found(normalize(q), normalize(k).detach(), queue, alike, temperature=0.2, attract=True) + 0 * k.sum()
    )


@pytest.mark.parametrize("loss", [_attract, _eliminate, _oracle, _queue])
def test_two_ranks(two_ranks: Pool, loss) -> None:  # type: ignore[no-untyped-def]
    hold_ranks_to_one(two_ranks, loss, unit(8, 4, 0), unit(8, 4, 1))


def _told(counts: Tensor) -> dict[str, Tensor]:
    return detection(local(counts)[0])


def test_detection_counts_both_ranks(two_ranks: Pool) -> None:
    for got in two_ranks.run(_told, torch.tensor([[1, 2, 3], [2, 6, 9]])):
        assert got["precision"] == pytest.approx(3 / 8)
        assert got["recall"] == pytest.approx(3 / 12)
