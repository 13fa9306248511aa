from __future__ import annotations

import torch

from nearfar.nn.causal import CausalConvolutions


def test_a_context_knows_its_own_row_and_those_above_alone() -> None:
    torch.manual_seed(0)
    rows, z = CausalConvolutions(5, 6, layers=3), torch.rand(2, 5, 4, 4)
    want = rows(z)
    assert want.shape == (2, 6, 4, 4)
    for row in range(4):
        other = z.clone()
        other[:, :, row] += 1
        changed = (rows(other) != want).any(1).any(0).any(1)
        assert changed.tolist() == [r >= row for r in range(4)]


def test_a_context_knows_its_neighbors_to_both_sides() -> None:
    torch.manual_seed(0)
    rows, z = CausalConvolutions(5, 6, layers=1), torch.rand(1, 5, 4, 5)
    other = z.clone()
    other[:, :, 0, 2] += 1
    changed = (rows(other) != rows(z)).any(1)[0]
    assert changed.tolist() == [
        [False, True, True, True, False],
        [False, True, True, True, False],
        [False] * 5,
        [False] * 5,
    ]
