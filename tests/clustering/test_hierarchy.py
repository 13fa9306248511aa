from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.clustering.hierarchy import balanced, hierarchical
from nearfar.clustering.kmeans import Clusters
from nearfar.errors import UserError


def concepts(sizes: tuple[int, ...], d: int = 6) -> Tensor:
    """Unit rows around as many directions, so many of each, in order."""
    which = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    noise = 0.15 * torch.randn(len(which), d, generator=torch.Generator().manual_seed(0))
    return F.normalize(torch.eye(len(sizes), d)[which] + noise, dim=1)


def test_each_level_clusters_the_centroids_below_it_and_resampling_evens_them_out() -> None:
    x = concepts((300, 20, 20))
    levels = hierarchical(x, [24, 3], resamples=4)
    assert [len(level.centroids) for level in levels] == [24, 3]
    assert [len(level.assigned) for level in levels] == [340, 24]
    top = levels[1].assigned[levels[0].assigned]
    of = [top[rows].unique() for rows in (slice(0, 300), slice(300, 320), slice(320, 340))]
    assert [len(part) for part in of] == [1, 1, 1]
    assert torch.equal(torch.cat(of).sort().values, torch.arange(3))
    plain = hierarchical(x, [24, 3], resamples=0)
    rare = [int((level[0].assigned[300:]).unique().numel()) for level in (levels, plain)]
    assert rare[0] >= rare[1]
    assert torch.equal(levels[0].assigned, hierarchical(x, [24, 3], resamples=4)[0].assigned)


def test_a_draw_is_even_from_the_top_down() -> None:
    sizes, parents = torch.tensor([50, 3, 40, 7]), torch.tensor([0, 0, 1, 1])
    lowest = torch.repeat_interleave(torch.arange(4), sizes)
    levels = [Clusters(torch.zeros(len(own.unique()), 2), own, torch.zeros(len(own))) for own in (lowest, parents)]
    kept = balanced(levels, 41)
    assert len(kept.unique()) == 41
    counts = torch.bincount(lowest[kept], minlength=4).tolist()
    assert counts[1] == 3  # all of a small one
    assert counts[3] == 7
    assert abs(sum(counts[:2]) - sum(counts[2:])) == 1  # 20 and 21
    assert torch.equal(balanced(levels, 100), torch.arange(100))
    assert not torch.equal(balanced(levels, 41, seed=1), kept)


@pytest.mark.parametrize("counts", [[], [11], [5, 5], [3, 0]])
def test_counts_that_do_not_fall_are_refused(counts: list[int]) -> None:
    with pytest.raises(UserError, match="numbers that fall"):
        hierarchical(torch.randn(10, 3), counts)


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(UserError, match="11 of 10 rows"):
        balanced([Clusters(torch.zeros(1, 2), torch.zeros(10, dtype=torch.int64), torch.zeros(10))], 11)
