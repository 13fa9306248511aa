from __future__ import annotations

from typing import cast

import pytest
import torch

from nearfar.batch import MISSING
from nearfar.methods.speed import Speed

from .small import form

speed = form("speed")


def build(**arguments: object) -> Speed:
    return cast(Speed, speed.build(**arguments))


def timed(n: int, frames: int = 8) -> torch.Tensor:
    """Clips that tell the time of a frame by its level."""
    return (torch.arange(frames) / 10 + torch.zeros(n, 1))[:, :, None, None, None].expand(-1, -1, 3, 4, 4)


@pytest.mark.parametrize(("speeds", "length"), [(2, 4), (3, 2)])
def test_clips_of_all_speeds_have_as_many_frames(speeds: int, length: int) -> None:
    played, target = build(speeds=speeds).play(timed(5))
    assert played.shape[:2] == (5 * speeds, length)
    assert target.tolist() == [k for k in range(speeds) for _ in range(5)]
    steps = (10 * (played[:, 1:] - played[:, :-1])[:, :, 0, 0, 0]).round().int()
    assert torch.equal(steps, (2 ** target.int())[:, None].expand(-1, length - 1))


def test_one_speed_is_drawn_for_each_clip_and_still_ones_have_none() -> None:
    view = timed(64).clone()
    view[3] = 0.5
    played, target = build(all_speeds=False).play(view)
    assert played.shape[:2] == (64, 4)
    assert set(target.tolist()) == {MISSING, 0, 1}
    assert (target == MISSING).nonzero().tolist() == [[3]]


def test_too_few_frames_are_refused() -> None:
    with pytest.raises(ValueError, match=r"4 frames.*speed of 4.*--clip-frames"):
        build(speeds=3).play(timed(2, 4))
