from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.clustering.kmeans import kmeans
from nearfar.evaluation import scores
from nearfar.evaluation.geometry import effective_rank, found


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def planted(values: Tensor, n: int = 200) -> Tensor:
    """n rows whose covariance has these eigenvalues, rotated and moved."""
    d = len(values)
    x = noise(n, d)
    columns = torch.linalg.qr(x - x.mean(0)).Q * values.sqrt() * math.sqrt(n - 1)
    return columns @ torch.linalg.qr(noise(d, d, seed=1)).Q + 0.5


@pytest.mark.parametrize("power", [0.0, 0.7, 1.0, 2.5])
def test_the_decay_is_that_of_a_planted_spectrum(power: float) -> None:
    x = planted(torch.arange(1, 33, dtype=torch.float64) ** -power)
    assert scores.decay(x) == pytest.approx(power, abs=1e-3)
    assert scores.nesum(x) == pytest.approx(sum(j**-power for j in range(1, 33)), rel=1e-3)


def test_a_planted_rank_is_found_and_a_collapse_too() -> None:
    x = planted(torch.tensor([1.0] * 5 + [0.0] * 11).double())
    assert scores.nesum(x) == pytest.approx(5, rel=1e-4)
    line, point = noise(50, 1) @ noise(1, 8), torch.ones(50, 8)
    assert scores.nesum(line) == pytest.approx(1)
    assert effective_rank(line) == pytest.approx(1, abs=1e-3)
    assert math.isnan(scores.decay(line))
    assert all(math.isnan(of(point)) for of in (scores.nesum, scores.decay, scores.dimension))
    assert scores.of_rows(point)["uniformity"] == pytest.approx(0, abs=1e-5)


def test_lidar_is_the_lda_matrix_by_the_book() -> None:
    views = noise(30, 5, 6) * torch.tensor([1, 2, 0.1, 1, 1, 3]) + 2 * noise(30, 1, 6, seed=1)
    means = [view.mean(0) for view in views]
    middle = sum(means) / 30
    between = sum(torch.outer(m - middle, m - middle) for m in means) / 29
    within = sum(torch.outer(v - m, v - m) for own, m in zip(views, means, strict=True) for v in own) / (30 * 4)
    values, basis = torch.linalg.eigh(within + 1e-4 * torch.eye(6))
    root = basis @ torch.diag(values.rsqrt()) @ basis.T
    share = torch.linalg.eigvalsh(root @ between @ root)
    share = share / share.sum() + 1e-7
    assert scores.lidar(views) == pytest.approx(float((-share * share.log()).sum().exp()), rel=1e-6)


def test_lidar_does_not_count_what_varies_within_samples() -> None:
    means = planted(torch.tensor([1.0] * 4 + [0.0] * 8).double())
    own = noise(200, 8, 12) * 0.01
    assert scores.lidar(means[:, None] + own) == pytest.approx(4, abs=0.1)
    rotated = torch.linalg.qr(noise(12, 12, seed=1)).Q
    across = noise(200, 8, 12, seed=3) * torch.tensor([0.01] * 4 + [100.0] * 8)  # where samples do not differ
    assert scores.lidar(means[:, None] + across @ rotated) == pytest.approx(4, abs=0.1)
    assert effective_rank((means[:, None] + across @ rotated).flatten(0, 1)) > 7
    with pytest.raises(ValueError, match="two views"):
        scores.lidar(means[:, None])


def test_learnability_is_the_share_told_by_the_nearest_before() -> None:
    x = noise(60, 3)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    z = F.normalize(x[order].float(), dim=1)
    label = kmeans(z, 7, seed=0).assigned.tolist()
    hits = [label[max(range(i), key=lambda j: float(z[i] @ z[j]))] == label[i] for i in range(1, 60)]
    assert scores.learnability(x) == pytest.approx(sum(hits) / 59)
    apart = 10 * torch.eye(10)[torch.arange(100) % 10] + 0.01 * noise(100, 10)
    assert scores.learnability(apart) == pytest.approx(90 / 99)  # all but the first of each


@pytest.mark.parametrize("d", [1, 2, 5])
def test_the_intrinsic_dimension_is_that_of_the_surface(d: int) -> None:
    flat = torch.rand(1000, d, generator=torch.Generator().manual_seed(0)).double()
    assert scores.dimension(flat @ noise(d, 20)) == pytest.approx(d, rel=0.12)
    twice = torch.cat([flat, flat[:1]]) @ noise(d, 20)
    assert scores.dimension(twice) == pytest.approx(d, rel=0.12)


def test_stability_is_the_share_of_neighbors_that_stayed() -> None:
    before = torch.tensor([[1, 2], [0, 2], [0, 1]])
    assert scores.stability(before, before.flip(1)) == 1
    assert scores.stability(before, before + 10) == 0
    assert scores.stability(before, torch.tensor([[1, 3], [3, 2], [3, 4]])) == pytest.approx(2 / 6)
    with pytest.raises(ValueError, match="wanted the same"):
        scores.stability(before, before[:2])
    x = noise(40, 4)
    assert torch.equal(scores.nearest(x), (F.normalize(x, dim=1) @ F.normalize(x, dim=1).T).topk(11).indices[:, 1:])


def test_other_views_are_found_as_one_would_look_for_them() -> None:
    a, b = noise(20, 3), noise(20, 3, seed=1) * 0.5 + noise(20, 3)
    rows = [F.normalize(row, dim=0) for row in [*a, *b]]
    hits = [max((j for j in range(40) if j != i), key=lambda j: float(rows[i] @ rows[j])) for i in range(40)]
    assert found(a, b) == pytest.approx(sum(j == (i + 20) % 40 for i, j in enumerate(hits)) / 40)


def test_cells_that_form_clusters_score_above_those_that_do_not() -> None:
    kinds = noise(4, 16, seed=1)
    which = torch.randint(4, (16, 5, 5), generator=torch.Generator().manual_seed(0))
    tight, loose = (kinds[which].permute(0, 3, 1, 2) + width * noise(16, 16, 5, 5) for width in (0.1, 3.0))
    assert scores.dense(tight, shared=4, local=4) > scores.dense(loose, shared=4, local=4) + 0.5
    assert math.isnan(scores.dense(torch.ones(4, 8, 5, 5)))
    # Of nine cells five are +1 and four -1: no cluster has a radius, the two lie 2 apart, cells 80/81 from their mean,
    # and all fill one of six dimensions.
    two = (1 - 2.0 * (torch.arange(9) % 2)).view(1, 1, 3, 3).expand(8, 6, 3, 3)
    assert scores.dense(two, shared=2, local=2) == pytest.approx(2 * 81 / 80 + 1 / 6, abs=1e-4)


def test_worth_is_higher_for_better() -> None:
    lines = [
        {"rankme": 3.0, "alpha": 1.4, "uniformity": -1.0, "learnability": 0.2, "dimension": 4.0},
        {"rankme": 5.0, "alpha": 0.9, "uniformity": -2.0, "learnability": 0.4, "dimension": 2.0, "stability": 0.5},
        {"rankme": 4.0, "alpha": math.nan, "uniformity": -3.0, "learnability": 0.6, "dimension": 6.0, "stability": 0.7},
    ]
    worth = scores.worth(lines)
    assert worth["rankme"] == [3, 5, 4]
    assert worth["alpha"] == pytest.approx([-0.4, -0.1, -math.inf])
    assert worth["uniformity"] == [1, 2, 3]
    assert worth["stability"] == [-math.inf, 0.5, 0.7]
    by_hand = [(l - 0.4) / math.sqrt(0.08 / 3) + (d - 4) / math.sqrt(8 / 3) for l, d in ((0.2, 4), (0.4, 2), (0.6, 6))]
    assert worth["clid"] == pytest.approx(by_hand)
    assert "lidar" not in worth
    assert scores.together(worth, ["rankme", "uniformity"]) == [1, 2.5, 2.5]
