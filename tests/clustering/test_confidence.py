from __future__ import annotations

import torch
from torch.nn import functional as F

from nearfar.clustering.confidence import confidence
from nearfar.clustering.kmeans import Clusters, kmeans


def test_it_is_a_softmax_over_centroids() -> None:
    x = F.normalize(torch.randn(50, 6, generator=torch.Generator().manual_seed(0)), dim=1)
    found = kmeans(x, 5)
    got = confidence(x, found, 0.2)
    for row, own, value in zip(x, found.assigned, got, strict=True):
        logits = torch.stack([row @ (c / c.norm()) / 0.2 for c in found.centroids])
        torch.testing.assert_close(value, logits.softmax(0)[own])


def test_it_is_higher_near_the_own_centroid_and_certain_with_one_cluster() -> None:
    angle = torch.linspace(0, 0.7, 8)  # from the one centroid toward the other, at 45 degrees is half of the way
    x = torch.stack([angle.cos(), angle.sin()], 1)
    found = Clusters(3 * torch.eye(2), torch.zeros(8, dtype=torch.long), torch.zeros(8))
    kappa = confidence(x, found, 0.2)
    assert (kappa.diff() < 0).all()
    assert (kappa > 0.5).all()
    torch.testing.assert_close(confidence(x, Clusters(torch.eye(2)[:1], *found[1:]), 0.2), torch.ones(8))
