from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import MISSING
from nearfar.embeddings import duplicates
from nearfar.embeddings.curate import curate, distinct, evenness
from nearfar.embeddings.duplicates import near_duplicates
from nearfar.errors import UserError


def rows(n: int = 60, d: int = 5) -> Tensor:
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(0)), dim=1)


def slow(unit: Tensor, threshold: float, part: Tensor) -> tuple[list[set[int]], list[int], list[list[int]]]:
    """Groups, and the nearest near-duplicate of each row, of all and of each other part."""
    cosine = (unit @ unit.T).fill_diagonal_(-1)
    groups: list[set[int]] = [{i} for i in range(len(unit))]
    nearest, across = [MISSING] * len(unit), [[MISSING] * 3 for _ in unit]
    for i in range(len(unit)):
        there = [j for j in range(len(unit)) if cosine[i, j] >= threshold]
        for j in there:
            one, other = (next(g for g in groups if k in g) for k in (i, j))
            if one is not other:
                groups.remove(other)
                one |= other
        nearest[i] = max(there, key=lambda j: cosine[i, j], default=MISSING)
        for p in {0, 1, 2} - {int(part[i])}:
            across[i][p] = max((j for j in there if part[j] == p), key=lambda j: cosine[i, j], default=MISSING)
    return [g for g in groups if len(g) > 1], nearest, across


@pytest.mark.parametrize("block", [7, 2048])
def test_groups_and_partners_are_those_of_a_slow_loop(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "BLOCK", block)
    unit, part = rows(), torch.arange(60) % 3
    found = near_duplicates(unit, 0.85, part)
    groups, nearest, across = slow(unit, 0.85, part)
    assert any(sum(j != MISSING for j in own) == 2 for own in across)
    assert groups
    ours = [set((found.group == g).nonzero()[:, 0].tolist()) for g in range(int(found.group.max()) + 1)]
    assert sorted(map(sorted, ours)) == sorted(map(sorted, groups))
    assert found.nearest.tolist() == nearest
    assert found.across.tolist() == across
    here = found.nearest != MISSING
    torch.testing.assert_close(found.cosine[here], (unit[here] * unit[found.nearest[here]]).sum(1))


def test_equal_rows_are_found_at_a_threshold_of_one() -> None:
    unit = torch.cat([rows(10, 100), rows(10, 100)[3:4]])
    assert (near_duplicates(unit, 1.0).group != MISSING).nonzero()[:, 0].tolist() == [3, 10]
    assert bool((near_duplicates(rows(3, 100), 1.0).group == MISSING).all())


def test_of_copies_the_one_farthest_from_the_centroid_stays() -> None:
    unit = rows(40, 16)
    copied = torch.cat([unit, F.normalize(unit[:12] + 0.001, dim=1)])
    left = distinct(copied, 0.99, clusters=4)
    assert len(left) == 40
    assert all(len({i, i + 40} & set(left.tolist())) == 1 for i in range(12))
    assert len(distinct(copied, 1.0, clusters=4)) == 52


def test_what_is_rare_is_kept_and_what_is_common_thinned() -> None:
    which = torch.repeat_interleave(torch.arange(3), torch.tensor([180, 12, 12]))
    unit = F.normalize(torch.eye(3, 6)[which] + 0.15 * rows(204, 6), dim=1)
    made = curate(unit, 45, counts=[24, 3])
    counts = torch.bincount(which[made.kept]).tolist()
    assert sum(counts) == 45
    assert min(counts) >= 10  # of a random 45 two or three
    assert evenness(made.after) > evenness(made.before)
    assert torch.equal(curate(unit, 45, counts=[24, 3]).kept, made.kept)


def test_more_than_there_are_or_are_left_is_refused() -> None:
    unit = torch.cat([rows(10), rows(10)])
    with pytest.raises(UserError, match="--keep 21: there are 20 samples"):
        curate(unit, 21)
    with pytest.raises(UserError, match=r"--dedup 0.999 leaves 10 of 20 samples"):
        curate(unit, 15, dedup=0.999)
    assert evenness(torch.tensor([4, 4, 0, 4])) == pytest.approx(3)
