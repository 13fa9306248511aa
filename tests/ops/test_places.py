from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nearfar.ops.places import cell_places, same_place


def crop(left: float, top: float, width: float, height: float, *, mirrored: bool = False) -> Tensor:
    """Where a crop of a square from -1 to 1 lies, as `Batch.places` has it: 1 x 2 x 3."""
    across = [-width / 2 if mirrored else width / 2, 0, left + width / 2]
    return torch.tensor([[across, [0, height / 2, top + height / 2]]])


WHOLE = crop(-1, -1, 2, 2)


def test_cells_lie_row_by_row_and_a_mirror_turns_rows_around() -> None:
    places, diagonal = cell_places(torch.cat([crop(0, -1, 1, 0.5), crop(0, -1, 1, 0.5, mirrored=True)]), 4)
    upper, lower = [[0.25, -0.875], [0.75, -0.875]], [[0.25, -0.625], [0.75, -0.625]]
    assert places.tolist() == [upper + lower, upper[::-1] + lower[::-1]]
    assert diagonal.tolist() == pytest.approx([math.hypot(0.5, 0.25)] * 2)
    with pytest.raises(ValueError, match="6 cells"):
        cell_places(WHOLE, 6)


def test_a_cell_of_the_same_view_shows_what_it_shows_and_its_neighbors_only_with_more_room() -> None:
    assert torch.equal(same_place(WHOLE, WHOLE, 9, 0.7)[0], torch.eye(9, dtype=torch.bool))
    assert same_place(WHOLE, WHOLE, 9, 0.71)[0].sum(1).tolist() == [3, 4, 3, 4, 5, 4, 3, 4, 3]  # a side is 0.7071
    assert same_place(WHOLE, WHOLE, 9, 2.9).all()


def test_a_mirrored_view_pairs_left_with_right_and_crops_apart_pair_nothing() -> None:
    flipped = same_place(WHOLE, crop(-1, -1, 2, 2, mirrored=True), 4, 0.5)[0]
    assert flipped.nonzero().tolist() == [[0, 1], [1, 0], [2, 3], [3, 2]]
    assert not same_place(crop(-1, -1, 0.5, 0.5), crop(0.5, 0.5, 0.5, 0.5), 4, 0.7).any()


def test_the_larger_cell_measures_and_the_order_of_views_does_not_matter() -> None:
    small = crop(-1, -1, 0.5, 0.5)  # all of it in the first cell of four
    found = same_place(WHOLE, small, 4, 0.7)
    assert found[0, 0].all()
    assert not found[0, 3].any()
    assert torch.equal(found.mT, same_place(small, WHOLE, 4, 0.7))
