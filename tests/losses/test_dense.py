from __future__ import annotations

import math

import pytest
import torch

from nearfar.batch import MISSING
from nearfar.losses.dense import info_nce_cells, most_alike, same_cells
from nearfar.losses.pairwise import info_nce
from tests.losses.ranks import unit

N, S, D, K = 3, 4, 5, 6
Q, KEYS, QUEUE = unit(N * S, D, 0).view(N, S, D), unit(N * S, D, 1).view(N, S, D), unit(K, D, 2)
MATCH = torch.tensor([[0, 0, 3, 1], [1, 2, 3, 0], [2, 2, 2, 2]])


@pytest.mark.parametrize("group", [None, [0, MISSING, 2]])
def test_info_nce_cells_is_that_of_a_loop(group: list[int] | None) -> None:
    of_queue, terms = [0, 0, MISSING, 1, 2, 0], []
    for i in range(N):
        for s in range(S):
            pull = float(Q[i, s] @ KEYS[i, MATCH[i, s]]) / 0.2
            others = [float(Q[i, s] @ k) / 0.2 for k, g in zip(QUEUE, of_queue, strict=True)
                      if group is None or group[i] != g or g == MISSING]  # fmt: skip
            terms.append(math.log(math.exp(pull) + sum(map(math.exp, others))) - pull)
    groups = None if group is None else (torch.tensor(group), torch.tensor(of_queue))
    got = info_nce_cells(Q, KEYS, MATCH, QUEUE, temperature=0.2, groups=groups)
    assert float(got) == pytest.approx(sum(terms) / len(terms))


def test_of_one_cell_it_is_info_nce_and_of_equal_rows_the_logarithm() -> None:
    one = info_nce_cells(Q[:, :1], KEYS[:, :1], torch.zeros(N, 1, dtype=torch.long), QUEUE, temperature=0.2)
    torch.testing.assert_close(one, info_nce(Q[:, 0], KEYS[:, 0], QUEUE, temperature=0.2))
    same = torch.ones(N, S, 1)
    assert float(info_nce_cells(same, same, MATCH, torch.ones(K, 1), temperature=0.2)) == pytest.approx(math.log(1 + K))


def test_most_alike_is_the_largest_cosine_whatever_the_lengths() -> None:
    length = torch.linspace(0.1, 9, N * S).view(N, S, 1)
    f, g = Q * length, KEYS * length.flip(1)
    want = [[max(range(S), key=lambda t: float(Q[i, s] @ KEYS[i, t])) for s in range(S)] for i in range(N)]
    assert most_alike(f, g).tolist() == want
    order = torch.tensor([2, 0, 3, 1])
    assert most_alike(f, f[:, order])[0].tolist() == order.argsort().tolist()


def test_same_cells_is_that_of_a_loop_and_no_pair_counts_as_0() -> None:
    same = torch.rand(N, S, S, generator=torch.Generator().manual_seed(0)) < 0.4
    same[1] = False
    rows = []
    for i in range(N):
        pairs = [float(Q[i, s] @ KEYS[i, t]) for s in range(S) for t in range(S) if same[i, s, t]]
        rows.append(-sum(pairs) / len(pairs) if pairs else 0.0)
    y = (3 * Q).requires_grad_()
    got = same_cells(y, 0.1 * KEYS, same)
    assert float(got.detach()) == pytest.approx(sum(rows) / N)
    got.backward()
    assert y.grad is not None
    assert not y.grad[1].any()
    everything = same_cells(Q, KEYS, torch.ones(N, S, S, dtype=torch.bool))
    torch.testing.assert_close(everything, -(Q @ KEYS.mT).mean())
