from __future__ import annotations

import pytest
import torch

from nearfar.batch import MISSING
from nearfar.ops.frames import at_speed, cut_in_time, moving


def clip(n: int, frames: int) -> torch.Tensor:
    """N x T x 1 x 2 x 2, whose values are 100 n + t."""
    return (
        (100 * torch.arange(n)[:, None] + torch.arange(frames))[:, :, None, None, None].expand(-1, -1, 1, 2, 2).float()
    )


def test_parts_lie_side_by_side_or_apart() -> None:
    times = lambda parts: parts[:, :, :, 0, 0, 0].int().tolist()
    assert times(cut_in_time(clip(2, 9), 3)) == [
        [[0, 1, 2], [3, 4, 5], [6, 7, 8]],
        [[100, 101, 102], [103, 104, 105], [106, 107, 108]],
    ]
    assert times(cut_in_time(clip(1, 9), 4)) == [[[0, 1], [2, 3], [4, 5], [6, 7]]]
    assert times(cut_in_time(clip(1, 8), 2, gap=0.5)) == [[[0, 1], [4, 5]]]
    assert times(cut_in_time(clip(1, 3), 3, gap=0.9)) == [[[0], [1], [2]]]
    with pytest.raises(ValueError, match=r"3 frames have no 4 parts.*--clip-frames"):
        cut_in_time(clip(1, 3), 4)


def test_speed_takes_every_frame_so_far_apart_from_a_place_that_is_drawn() -> None:
    place = torch.tensor([0.0, 0.5, 0.999])
    out = at_speed(clip(3, 9), 2, 3, place)[:, :, 0, 0, 0].int().tolist()
    assert out == [[0, 2, 4], [102, 104, 106], [204, 206, 208]]
    assert at_speed(clip(1, 4), 1, 4, place[2:])[0, :, 0, 0, 0].tolist() == [0, 1, 2, 3]


def test_still_clips_have_no_target() -> None:
    view = torch.rand(3, 4, 3, 8, 8)
    view[0] = view[0, :1]
    view[1] = view[1, :1]
    view[1, 2, :, 0, 0] += 0.64  # a hundredth on average
    assert moving(view, torch.tensor([5, 6, 7]), 0.005).tolist() == [MISSING, 6, 7]
    assert moving(view, torch.tensor([5, 6, 7]), 0.02).tolist() == [MISSING, MISSING, 7]
