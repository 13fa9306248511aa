from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nearfar.memory.turns import in_turns, turns


@pytest.mark.parametrize(
    ("ids", "want", "rows"),
    [
        ([], [], []),
        ([7], [0], [[0]]),
        ([3, 3, 3], [0, 1, 2], [[0], [1], [2]]),
        ([2, 0, 1], [0, 0, 0], [[0, 1, 2]]),
        ([5, -1, 5, 2, -1, 5], [0, 0, 1, 0, 1, 2], [[0, 1, 3], [2, 4], [5]]),
    ],
)
def test_by_hand(ids: list[int], want: list[int], rows: list[list[int]]) -> None:
    given = torch.tensor(ids, dtype=torch.int64)
    assert turns(given).tolist() == want
    assert [now.tolist() for now in in_turns(given)] == rows


@given(st.lists(st.integers(-3, 5), max_size=40))
def test_against_a_slow_loop(ids: list[int]) -> None:
    met, want = Counter[int](), []
    for name in ids:
        want.append(met[name])
        met[name] += 1
    rows = torch.tensor(ids, dtype=torch.int64)
    assert turns(rows).tolist() == want
    parts = [now.tolist() for now in in_turns(rows)]
    assert sorted(row for part in parts for row in part) == list(range(len(ids)))
    for number, part in enumerate(parts):
        assert part == [i for i, turn in enumerate(want) if turn == number]
