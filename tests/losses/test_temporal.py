from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.losses.temporal import time_contrast
from tests.losses.ranks import hold_ranks_to_one, unit
from tests.two_ranks import Pool


def slow(views: list[Tensor], margin: float, near: int, far: int, group: list[int]) -> float:
    rows = [(row, n, t) for view in views for n, video in enumerate(view.tolist()) for t, row in enumerate(video)]
    d = lambda i, j: sum((a - b) ** 2 for a, b in zip(rows[i][0], rows[j][0], strict=True))
    losses = []
    for a, (_, n, t) in enumerate(rows):
        negatives = [
            j
            for j, (_, m, s) in enumerate(rows)
            if (m == n and abs(s - t) > far) or (m != n and (group[m] != group[n] or group[n] == MISSING))
        ]
        for p, (_, m, s) in enumerate(rows):
            if m != n or abs(s - t) > near or p == a or not negatives:
                continue
            beyond = [d(a, j) for j in negatives if d(a, j) > d(a, p)]
            chosen = min(beyond) if beyond else max(d(a, j) for j in negatives)
            losses.append(max(0.0, margin + d(a, p) - chosen))
    return sum(losses) / max(1, len(losses))


def videos(seed: int, n: int = 3, t: int = 5) -> Tensor:
    return unit(n * t, 4, seed).unflatten(0, (n, t))


@pytest.mark.parametrize(("near", "far"), [(0, 0), (1, 2), (2, 4)])
@pytest.mark.parametrize("group", [[MISSING] * 3, [0, 0, MISSING], [7, 7, 7]])
def test_it_is_a_loop_over_pairs(near: int, far: int, group: list[int]) -> None:
    views = [videos(0), (videos(0) + 0.3 * videos(1)).contiguous()]
    got = time_contrast(views, margin=0.2, near=near, far=far, group=torch.tensor(group))
    assert float(got) == pytest.approx(slow(views, 0.2, near, far, group), rel=1e-6)
    assert (float(got) > 0) == (group[0] != 7 or far < 4)  # else there is no negative


def test_moments_that_are_apart_and_positives_that_agree_cost_nothing() -> None:
    rows = 3 * torch.eye(12, dtype=torch.float64).unflatten(0, (3, 4))
    assert float(time_contrast([rows, rows], margin=0.2)) == 0
    moved = rows + torch.randn(12, dtype=torch.float64)  # distances stay
    assert float(time_contrast([moved, moved], margin=0.2)) == pytest.approx(0, abs=1e-12)
    shuffled = [rows, rows.roll(1, 1)]
    assert float(time_contrast(shuffled, margin=0.2)) == pytest.approx(0.2)  # none is farther: the farthest is as far


def test_equal_rows_give_the_margin_and_no_negative_nothing() -> None:
    same = torch.ones(2, 4, 3)
    assert float(time_contrast([same, same], margin=0.3)) == pytest.approx(0.3)
    assert float(time_contrast([same], margin=0.3, near=1, far=2)) == pytest.approx(0.3)
    assert float(time_contrast([same[:1, :1]] * 2, margin=0.3)) == 0
    assert float(time_contrast([same], margin=0.3, near=4, far=4, group=torch.tensor([1, 1]))) == 0


def _loss(a: Tensor, b: Tensor, group: Tensor) -> Tensor:
    """3 moments of each row's video."""
    views = [torch.stack([x, x.roll(1, 1), -x], 1) for x in (a, b)]
    return time_contrast(views, margin=0.5, near=1, far=1, group=group)


def test_two_ranks(two_ranks: Pool) -> None:
    hold_ranks_to_one(two_ranks, _loss, unit(8, 4, 0), unit(8, 4, 1), torch.tensor([0, 0, 1, -1, 1, -1, 2, 0]))
