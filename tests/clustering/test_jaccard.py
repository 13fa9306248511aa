from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nearfar.clustering import jaccard as module
from nearfar.clustering.jaccard import Pairs, jaccard
from nearfar.distributed import normalize


def rows(n: int, seed: int = 0, spread: float = 0.5) -> Tensor:
    """Rows about a few directions."""
    generator = torch.Generator().manual_seed(seed)
    middle = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, 6, generator=generator, dtype=torch.float64)
    return normalize(middle[torch.arange(n) % 5] + spread * noise)


def dense(pairs: Pairs) -> Tensor:
    out = torch.full((pairs.size, pairs.size), torch.inf, dtype=pairs.distance.dtype)
    out[pairs.i, pairs.j] = pairs.distance
    return out


def slow(x: Tensor, k1: int, k2: int) -> Tensor:
    """The steps as sets and loops."""
    n = len(x)
    distance = [[float((x[i] - x[j]).square().sum()) for j in range(n)] for i in range(n)]
    near = [sorted(range(n), key=lambda j: distance[i][j] if j != i else -1.0) for i in range(n)]

    def reciprocal(i: int, k: int) -> set[int]:
        return {j for j in near[i][:k] if i in near[j][:k]}

    weight = torch.zeros(n, n, dtype=torch.float64)
    for i in range(n):
        own = reciprocal(i, k1)
        more = set(own)
        for j in own:
            theirs = reciprocal(j, min(round(k1 / 2 + 1e-9) + 1, k1))
            if len(theirs & own) > 2 / 3 * len(theirs):
                more |= theirs
        total = sum(math.exp(-distance[i][j]) for j in more)
        for j in more:
            weight[i, j] = math.exp(-distance[i][j]) / total
    weight = torch.stack([weight[near[i][:k2]].mean(0) for i in range(n)])
    out = torch.zeros(n, n, dtype=torch.float64)
    for i in range(n):
        for j in range(n):
            common = float(torch.minimum(weight[i], weight[j]).sum())
            out[i, j] = max(0.0, 1 - common / (2 - common))
    return out


@pytest.mark.parametrize(("n", "k1", "k2"), [(40, 9, 3), (40, 8, 1), (31, 30, 6), (12, 30, 6), (25, 1, 1), (25, 2, 2)])
def test_against_a_slow_loop(n: int, k1: int, k2: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = rows(n)
    want = slow(x, min(k1, n), k2)
    torch.testing.assert_close(dense(jaccard(x, k1=k1, k2=k2)), want, rtol=1e-9, atol=1e-9)
    monkeypatch.setattr(module, "TRIPLES", 100)  # a few rows at a time
    torch.testing.assert_close(dense(jaccard(x, k1=k1, k2=k2)), want, rtol=1e-9, atol=1e-9)


def test_by_hand() -> None:
    """Two rows at one place, and a third whose nearest is one of them: with two neighbors it is nobody's."""
    x = normalize(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    got = dense(jaccard(x, k1=2, k2=1))
    assert got.tolist() == [[0, 0, 1], [0, 0, 1], [1, 1, 0]]
    # Smoothed over two: the third becomes the mean of itself and of a row of the pair, so that half of it is common.
    got = dense(jaccard(x, k1=2, k2=2))
    assert got[2, 0] == pytest.approx(1 - 0.5 / 1.5)


def test_it_is_symmetric_between_0_and_1_and_0_to_itself() -> None:
    got = dense(jaccard(rows(50), k1=10, k2=4))
    torch.testing.assert_close(got, got.T)
    torch.testing.assert_close(got.diag(), torch.zeros(50).double(), rtol=0, atol=1e-12)
    assert got.min() >= 0
    assert got.max() <= 1


def test_a_limit_leaves_out_what_lies_beyond() -> None:
    x = rows(50)
    whole, part = jaccard(x, k1=10, k2=4), jaccard(x, k1=10, k2=4, limit=0.6)
    assert len(whole.i) == 2500 > len(part.i)
    near = dense(whole) <= 0.6
    assert torch.equal(dense(part) <= 1, near)
    torch.testing.assert_close(dense(part)[near], dense(whole)[near])
    code = part.i * 50 + part.j
    assert torch.equal(code, code.sort().values)


def test_equal_rows_are_their_own_nearest() -> None:
    x = rows(1).expand(7, -1).contiguous()
    assert dense(jaccard(x, k1=3, k2=1)).diag().abs().max() < 1e-12


def test_rows_of_one_direction_are_nearer_than_others() -> None:
    got = dense(jaccard(rows(60, spread=0.1), k1=12, k2=4))
    same = (torch.arange(60)[:, None] - torch.arange(60)) % 5 == 0
    assert got[same].max() < got[~same].min()


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="k1 0, k2 6"):
        jaccard(rows(5), k1=0)
