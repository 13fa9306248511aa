from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from nearfar.clustering.kmeans import kmeans


@pytest.fixture(params=["faiss", "scikit-learn"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "faiss":
        pytest.importorskip("faiss", reason="FAISS is not installed (the extra fast)")
    else:
        monkeypatch.setitem(sys.modules, "faiss", None)
    return request.param


def blobs(n: int, k: int, d: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    which = torch.arange(n) % k
    return 10 * torch.eye(k, d)[which] + 0.1 * torch.randn(n, d, generator=generator), which


def test_clusters_far_apart_are_found(engine: str) -> None:
    x, which = blobs(60, 4)
    start = x[:4]  # one of each
    found = kmeans(x, 4, start=start)
    assert torch.equal(found.assigned, which)
    for cluster in range(4):
        torch.testing.assert_close(found.centroids[cluster], x[which == cluster].mean(0))
    torch.testing.assert_close(found.distance, (x - found.centroids[which]).norm(dim=1))


def test_every_row_has_its_nearest_centroid(engine: str) -> None:
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(1))
    found = kmeans(x, 9, iterations=50)
    distance = torch.cdist(x, found.centroids)
    torch.testing.assert_close(distance.gather(1, found.assigned[:, None])[:, 0], distance.amin(1))
    assert len(found.assigned.unique()) == 9


def test_more_iterations_from_where_it_stood_are_no_worse(engine: str) -> None:
    x = torch.randn(300, 5, generator=torch.Generator().manual_seed(2))
    spread = []
    found = kmeans(x, 8, iterations=1, seed=3)
    for _ in range(4):
        spread.append(float(found.distance.square().sum()))
        found = kmeans(x, 8, start=found.centroids, iterations=2)
    assert spread == sorted(spread, reverse=True)
    assert spread[-1] < spread[0]


def test_the_seed_decides(engine: str) -> None:
    x = torch.randn(100, 3, generator=torch.Generator().manual_seed(4))
    one, same, other = (kmeans(x, 5, iterations=1, seed=seed).centroids for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_as_many_clusters_as_rows_and_half_precision(engine: str) -> None:
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(5)).half()
    found = kmeans(x, 6, iterations=5)
    assert found.centroids.dtype == torch.float32
    assert float(found.distance.max()) < 1e-3
    assert len(kmeans(torch.ones(5, 2), 3).assigned) == 5  # fewer different rows than clusters


def test_what_cannot_be_clustered_is_refused() -> None:
    with pytest.raises(ValueError, match=r"7 clusters of rows of shape \(6, 3\)"):
        kmeans(torch.zeros(6, 3), 7)
    with pytest.raises(ValueError, match=r"start of shape \(2, 2\) for 2 clusters; wanted 2 x 3"):
        kmeans(torch.zeros(6, 3), 2, start=torch.zeros(2, 2))
