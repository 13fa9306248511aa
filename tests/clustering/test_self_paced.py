from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nearfar.clustering.jaccard import Pairs
from nearfar.clustering.self_paced import agreement, dbscan, self_paced


def pairs(distance: Tensor, limit: float = 1.0) -> Pairs:
    i, j = (distance <= limit).nonzero(as_tuple=True)
    return Pairs(len(distance), i, j, distance[i, j])


def line(*places: float) -> Tensor:
    """Distances of points on a line."""
    at = torch.tensor(places)
    return (at[:, None] - at).abs()


def random(n: int, seed: int = 0) -> Tensor:
    """Distances of points of the plane, about six of them."""
    generator = torch.Generator().manual_seed(seed)
    at = torch.rand(6, 2, generator=generator)[torch.arange(n) % 6] + 0.05 * torch.randn(n, 2, generator=generator)
    return torch.cdist(at, at)


def same(label: Tensor) -> list[set[int]]:
    """The clusters as sets, those of one row too."""
    return sorted(({i for i, l in enumerate(label.tolist()) if l == name} for name in set(label.tolist())), key=min)


def test_dbscan_by_hand() -> None:
    """Three that lie close, a border row of which one core is near, one far away, two that are too few."""
    got = dbscan(pairs(line(0.0, 0.1, 0.2, 0.49, 5.0, 9.0, 9.1)), 0.3, 3)
    assert same(got) == [{0, 1, 2, 3}, {4}, {5}, {6}]
    assert got[0] == 0
    assert got[4:].min() > 0
    assert same(dbscan(pairs(line(0.0, 0.1, 0.2)), 0.01, 2)) == [{0}, {1}, {2}]  # noise alone


def test_equal_rows_are_near_each_other() -> None:
    assert same(dbscan(pairs(line(1, 1, 1, 4)), 0.5, 3)) == [{0, 1, 2}, {3}]


def test_agreement_against_sets() -> None:
    a, b = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([3, 3, 0, 0, 0, 5])
    assert agreement(a, b).tolist() == pytest.approx([2 / 3, 2 / 3, 1 / 5, 2 / 3, 2 / 3, 1])
    assert agreement(a, a).tolist() == [1] * 6
    assert agreement(a, b).tolist() == agreement(b, a).tolist()


def slow(distance: Tensor, eps: float, gap: float, least: int, threshold: float | None) -> tuple[list[set[int]], float]:
    """With sets, a row at a time."""
    every = [same(dbscan(pairs(distance), radius, least)) for radius in (eps, eps + gap, eps - gap)]
    own, loose, tight = ([next(c for c in clusters if i in c) for i in range(len(distance))] for clusters in every)
    dependence = [1 - len(a & b) / len(a | b) for a, b in zip(own, loose, strict=True)]
    looseness = [1 - len(a & b) / len(a | b) for a, b in zip(own, tight, strict=True)]
    score = [min(dependence[j] for j in c) for c in own]
    if threshold is None:
        several = sorted(min(dependence[j] for j in c) for c in every[0] if len(c) > 1)
        threshold = several[min(round(0.9 * len(several)), len(several) - 1)]
    stays = [
        score[i] <= threshold + 1e-6 and looseness[i] <= min(looseness[j] for j in own[i]) + 1e-6
        for i in range(len(distance))
    ]
    kept = [{i for i in c if stays[i]} for c in every[0]]
    return sorted([*(c for c in kept if c), *({i} for i in range(len(distance)) if not stays[i])], key=min), threshold


@pytest.mark.parametrize("threshold", [None, 0.0, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_against_sets(seed: int, threshold: float | None) -> None:
    distance = random(90, seed)
    given = -1.0 if threshold is None else threshold
    got = self_paced(pairs(distance), eps=0.05, gap=0.01, least=4, threshold=given)
    want, fixed = slow(distance, 0.05, 0.01, 4, threshold)
    assert same(got.label) == want
    assert got.threshold == pytest.approx(fixed)
    assert 1 < len(want) < (90 if threshold else 91)


def test_without_a_gap_every_cluster_is_kept() -> None:
    distance = pairs(random(90))
    got = self_paced(distance, eps=0.05, gap=0.0)
    assert same(got.label) == same(dbscan(distance, 0.05, 4))
    assert got.threshold == 0


def test_what_a_larger_radius_joins_and_a_smaller_one_loses() -> None:
    """Four close rows, four more that a larger radius would join to them, and four of which one is on the edge."""
    distance = line(0, 0.1, 0.2, 0.3, 0.91, 1.01, 1.11, 1.21, 5, 5.1, 5.2, 5.79)
    got = self_paced(pairs(distance), eps=0.6, gap=0.02, least=3, threshold=0.0)
    assert same(got.label) == [{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8, 9, 10}, {11}]
    got = self_paced(pairs(distance), eps=0.6, gap=0.02, least=3, threshold=0.5)  # half is their own
    assert same(got.label) == [{0, 1, 2, 3}, {4, 5, 6, 7}, {8, 9, 10}, {11}]


def test_without_clusters_the_threshold_waits() -> None:
    got = self_paced(pairs(line(0, 5, 10)), eps=0.5, gap=0.1)
    assert got.threshold < 0
    assert same(got.label) == [{0}, {1}, {2}]
