from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nearfar.evaluation import cross


def slow_rank(query: Tensor, gallery: Tensor, own: set[int], without: set[int]) -> int:
    cosine = [float(torch.cosine_similarity(query, row, dim=0)) for row in gallery]
    order = sorted((j for j in range(len(gallery)) if j not in without), key=lambda j: (-cosine[j], j))
    return min(order.index(j) for j in own)


@pytest.mark.parametrize("without", [False, True])
def test_the_rank_is_that_of_the_first_that_belongs_in_the_sorted_gallery(without: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    query, gallery = torch.randn(6, 4, generator=generator), torch.randn(9, 4, generator=generator)
    own = [{0, 5}, {1}, {2, 3, 4}, {8}, {7}, {6, 0}]
    left = [{i} - own[i] for i in range(6)]
    pairs = torch.tensor([(i, j) for i, which in enumerate(own) for j in sorted(which)])
    other = torch.tensor([(i, j) for i, which in enumerate(left) for j in which]).reshape(-1, 2)
    got = cross.ranks(query, gallery, pairs, other if without else None)
    want = [slow_rank(query[i], gallery, own[i], left[i] if without else set()) for i in range(6)]
    assert got.tolist() == want


def test_of_equal_cosines_the_lower_index_comes_first() -> None:
    rows = torch.ones(4, 3)
    assert cross.ranks(rows, rows, torch.tensor([(i, i) for i in range(4)])).tolist() == [0, 1, 2, 3]


def test_identity_finds_all_and_recall_at_random_is_what_counting_says() -> None:
    eye = torch.eye(20)
    rank = cross.ranks(eye, eye, torch.tensor([(i, i) for i in range(20)]))
    assert not rank.any()
    assert cross.median_rank(rank) == 1
    assert cross.median_rank(torch.tensor([9, 0, 4, 1])) == 3  # floor(2.5) + 1
    one = torch.tensor([(i, i) for i in range(20)])
    assert cross.chance(one, 20) == pytest.approx({1: 5, 5: 25, 10: 50})
    two = torch.cat([one, torch.tensor([(i, (i + 1) % 20) for i in range(20)])])
    assert cross.chance(two, 20, ks=(1,))[1] == pytest.approx(10)
    assert cross.chance(two, 20, ks=(19,))[19] == pytest.approx(100)


def test_rows_of_two_widths_and_a_query_alone_are_refused() -> None:
    with pytest.raises(ValueError, match="3 and 4 numbers"):
        cross.ranks(torch.ones(2, 3), torch.ones(2, 4), torch.tensor([(0, 0)]))
    with pytest.raises(ValueError, match="nothing that belongs"):
        cross.ranks(torch.eye(2), torch.eye(2), torch.tensor([(0, 0)]))


def test_the_row_of_a_class_is_the_direction_between_its_prompts() -> None:
    prompt = torch.tensor([[3.0, 0, 0], [0, 5, 0], [0, 0, 1]])
    rows = cross.class_weights(prompt, torch.tensor([1, 1, 0]), 2)
    torch.testing.assert_close(rows, torch.tensor([[0, 0, 1.0], [0.5**0.5, 0.5**0.5, 0]]))
    with pytest.raises(ValueError, match="class 2 has no prompt"):
        cross.class_weights(prompt, torch.tensor([1, 1, 0]), 3)
