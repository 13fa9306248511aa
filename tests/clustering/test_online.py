from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.clustering.online import OnlineClusters
from nearfar.distributed import local
from tests.two_ranks import Pool


def rows(n: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(n, 4, generator=torch.Generator().manual_seed(seed)), dim=1)


def started(n: int = 60, count: int = 5, least: int = 1) -> tuple[OnlineClusters, Tensor]:
    x = rows(n)
    clusters = OnlineClusters(n, count, 4, least=least)
    clusters.start(x)
    return clusters, x


def hold_means(clusters: OnlineClusters, x: Tensor) -> None:
    for c in clusters.label.unique():
        torch.testing.assert_close(clusters.centroids[c], x[clusters.label == c].mean(0))


def test_it_starts_from_k_means() -> None:
    clusters, x = started()
    hold_means(clusters, x)
    distance = torch.cdist(x, clusters.centroids)
    torch.testing.assert_close(distance.gather(1, clusters.label[:, None])[:, 0], distance.amin(1))
    assert clusters.centroids.norm(dim=1).max() < 1


def test_a_sample_that_is_seen_moves_to_the_centroid_with_the_largest_product() -> None:
    clusters, _ = started()
    before, index, v = clusters.label.clone(), torch.tensor([7, 30, 2]), rows(3, seed=1)
    clusters.assign(index, v)
    for i in range(60):
        want = before[i]
        if i in index:
            want = torch.stack([v[index == i][0] @ c for c in clusters.centroids]).argmax()
        assert clusters.label[i] == want


def test_centroids_are_plain_means_and_an_empty_cluster_keeps_its_own() -> None:
    clusters, x = started()
    clusters.label[clusters.label == 3] = 1
    kept = clusters.centroids[3].clone()
    clusters.recenter(x.flip(0))
    hold_means(clusters, x.flip(0))
    assert torch.equal(clusters.centroids[3], kept)


def test_small_clusters_are_taken_apart_and_take_half_of_the_largest() -> None:
    clusters, x = started(least=4)
    clusters.label[clusters.label == 2] = 0
    clusters.label[:3] = 2  # three members: too few
    clusters.label[clusters.label == 4] = 0  # and none
    before = clusters.label.clone()
    clusters.refill(x)
    assert len(clusters.label.unique()) == 5
    largest = int(torch.bincount(before).argmax())
    for c in {1, 3} - {largest}:  # nothing leaves a cluster that is neither small nor split
        assert (clusters.label[before == c] == c).all()
    assert torch.bincount(clusters.label)[[2, 4]].min() > 0
    for c in (2, 4):
        torch.testing.assert_close(clusters.centroids[c], x[clusters.label == c].mean(0))


def test_where_none_is_small_nothing_moves_and_all_small_is_left_alone() -> None:
    for least in (1, 1000):
        clusters, x = started()
        clusters.least = least
        before = clusters.label.clone()
        clusters.refill(x)
        assert torch.equal(clusters.label, before)


def test_copies_of_one_row_are_halved() -> None:
    clusters = OnlineClusters(20, 2, 4)
    clusters.label.fill_(0)
    clusters.refill(rows(1).expand(20, -1))
    assert torch.bincount(clusters.label).tolist() == [10, 10]


def _moved(index: Tensor, v: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(0)
    clusters, x = started()
    clusters.assign(local(index), local(v))
    clusters.recenter(x)
    return dict(clusters.state_dict())


def test_two_ranks_hold_what_one_holds(two_ranks: Pool) -> None:
    index, v = torch.tensor([3, 50, 8, 21]), rows(4, seed=2)
    want = _moved(index, v)
    for got in two_ranks.run(_moved, index, v):
        torch.testing.assert_close(got, want, rtol=0, atol=0)
