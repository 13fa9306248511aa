from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from nearfar.clustering.concentration import LEAST, concentration
from nearfar.clustering.kmeans import Clusters


def clusters(sizes: list[int], spread: list[float]) -> Clusters:
    """Clusters of so many members, each of which is so far from its centroid, on average."""
    assigned = torch.cat([torch.full((n,), c) for c, n in enumerate(sizes)])
    far = torch.cat(
        [torch.linspace(0.5, 1.5, n) * s if n > 1 else torch.zeros(n) for n, s in zip(sizes, spread, strict=True)]
    )
    return Clusters(torch.zeros(len(sizes), 3), assigned, far)


def slow(found: Clusters, temperature: float) -> Tensor:
    k = len(found.centroids)
    members = [[float(d) for a, d in zip(found.assigned, found.distance, strict=True) if a == c] for c in range(k)]
    phi = [sum(d) / len(d) / math.log(len(d) + 10) if len(d) > 1 else 0.0 for d in members]
    phi = [p if len(d) > 1 else max(phi) for p, d in zip(phi, members, strict=True)]
    clipped = np.clip(phi, *np.percentile(phi, [10, 90]))
    return torch.tensor(temperature * clipped / clipped.mean(), dtype=torch.float32)


def test_against_a_slow_loop() -> None:
    found = clusters([5, 2, 30, 9, 1, 12, 4, 0], [0.3, 0.8, 0.5, 0.1, 0.0, 0.9, 0.4, 0.0])
    got = concentration(found, 0.2)
    torch.testing.assert_close(got, slow(found, 0.2))
    assert got.mean() == pytest.approx(0.2)
    assert (got > 0).all()


def test_tighter_and_larger_clusters_have_less() -> None:
    sizes, spread = [6] * 12, torch.linspace(1, 2, 12).tolist()
    phi = concentration(clusters(sizes, spread), 0.1)
    assert (phi[2:-2].diff() > 0).all()  # the ends are clipped
    phi = concentration(clusters(list(range(4, 16)), [1.0] * 12), 0.1)
    assert (phi[2:-2].diff() < 0).all()
    torch.testing.assert_close(concentration(clusters([5] * 4, [0.7] * 4), 0.1), torch.full((4,), 0.1))


def test_without_spread_all_are_the_temperature() -> None:
    for sizes in ([1] * 6, [4, 3, 2], [1, 5, 0]):
        torch.testing.assert_close(
            concentration(clusters(sizes, [0.0] * len(sizes)), 0.3), torch.full((len(sizes),), 0.3)
        )


def test_copies_of_one_sample_do_not_make_logits_infinite() -> None:
    phi = concentration(clusters([4] * 6, [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]), 0.2)
    assert phi.min() == pytest.approx(LEAST * float(phi.max()))
    assert phi.mean() == pytest.approx(0.2)
