from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from nearfar.errors import Lost
from nearfar.modalities.image.plan import View
from nearfar.modalities.image.views import Views
from nearfar.modalities.video import named, views
from nearfar.modalities.video.films import Held
from nearfar.modalities.video.samples import open_videos
from nearfar.modalities.video.views import ClipViews
from tests.modalities.video.small import moving, numbered

DRAWN = 4000


def starts(length: int, power: float = 1.0, *, frames: int = 8, stride: int = 2) -> torch.Tensor:
    made = ClipViews(named.cvrl(8), frames=frames, stride=stride, power=power)
    draws = made.draw(DRAWN, torch.Generator().manual_seed(0))
    return made.starts(torch.full((DRAWN,), length), draws)


@pytest.mark.parametrize("power", [0.0, 1.0, 3.0])
def test_clips_lie_apart_by_the_density_that_falls_as_a_power(power: float) -> None:
    length, span = 1014, 14
    begin = starts(length, power)
    room = length - span
    apart = (begin[:, 0] - begin[:, 1]).abs()
    cdf = lambda k: 1 - (1 - np.clip(k, 0, room) / room) ** (power + 1)
    assert stats.kstest(apart.numpy() + 0.5, cdf).pvalue > 0.01
    assert float(apart.float().mean()) == pytest.approx(room / (power + 2), rel=0.05)
    assert begin.min() >= 0
    assert begin.max() + span < length
    assert abs(float((begin[:, 0] < begin[:, 1]).float().mean()) - 0.5) < 0.03
    # The first of the two begins anywhere that leaves room for the second.
    share = begin.amin(1) / (room - apart)
    assert stats.kstest(share.numpy(), "uniform").pvalue > 0.001


def test_short_videos_begin_again() -> None:
    begin = starts(10)
    assert begin.unique().tolist() == list(range(10))
    assert float(torch.corrcoef(begin.T.float())[0, 1].abs()) < 0.05
    videos = open_videos([numbered(3, 8)])
    clip = ClipViews(named.cvrl(8), frames=8, stride=2)
    frames, _, _ = clip.read(*videos.fetch(torch.tensor([0])), clip.draw(1, torch.Generator().manual_seed(1)))
    levels = frames[0, :, 0, 0, 0].tolist()
    order = [levels.index(level) for level in levels]
    assert order[:3] == order[3:6] == [0, 1, 2]
    assert open_videos([numbered(2, 8)[:1]]).lengths.tolist() == [1]


def test_frames_follow_each_other_at_the_stride_and_the_plain_clip_is_in_the_middle() -> None:
    videos = open_videos([numbered(51, 8)])
    clip = ClipViews(named.cvrl(8), frames=4, stride=3)
    draws = clip.draw(1, torch.Generator().manual_seed(0))
    begin = clip.starts(videos.lengths, draws)[0].tolist()
    *made, _ = clip.read(*videos.fetch(torch.tensor([0])), draws)
    for first, frames in zip(begin, made, strict=True):
        want = [round((first + 3 * t) * 255 / 50) for t in range(4)]
        assert frames[0, :, 0, 4, 4].tolist() == want
    frames, aspect = views.plain(8, 4, 3).read(*videos.fetch(torch.tensor([0])), None)
    assert frames[0, :, 0, 0, 0].tolist() == [round((20 + 3 * t) * 255 / 50) for t in range(4)]
    assert aspect.tolist() == [[1.0]]


def test_a_video_in_which_nothing_moves_stays_still_unless_frames_are_drawn_apart() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (1, 24, 24, 3), np.uint8)
    videos = open_videos([np.repeat(picture, 20, 0)] * 6)
    for consistent in (True, False):
        clip = ClipViews(named.cvrl_released(16), frames=5, stride=2, consistent=consistent)
        draws = clip.draw(6, torch.Generator().manual_seed(0))
        for view in clip(*clip.read(*videos.fetch(torch.arange(6)), draws), draws=draws):
            still = (view == view[:, :1]).flatten(1).all(1)
            assert bool(still.all()) == consistent
            assert not torch.equal(view[0], view[1])


def test_frames_recolored_each_for_itself_still_show_the_same_part() -> None:
    across = np.linspace(40, 180, 24).round().astype(np.uint8)
    picture = np.broadcast_to(across[:, None], (1, 24, 24, 3))  # brighter to the right
    videos = open_videos([np.repeat(picture, 20, 0)] * 6)
    mild = View(size=16, area=(0.2, 0.6), jitter=1.0, brightness=0.3, contrast=0.0, saturation=0.0, hue=0.0)
    clip = ClipViews(Views([mild, mild]), frames=5, stride=1, frame_colors=True)
    draws = clip.draw(6, torch.Generator().manual_seed(0))
    for view in clip(*clip.read(*videos.fetch(torch.arange(6)), draws), draws=draws):
        assert not bool((view == view[:, :1]).flatten(1).all(1).any())
        part = view / view.mean((2, 3, 4), keepdim=True)  # without the brightness of the frame
        torch.testing.assert_close(part, part[:, :1].expand_as(part), atol=0.01, rtol=0)
        assert float((part - part[:1]).abs().max()) > 0.05  # but videos do not


def test_the_views_of_a_video_do_not_depend_on_its_batch() -> None:
    videos = open_videos(list(moving(6, 20)))
    for moments in (False, True):
        clip = ClipViews(named.tcn(8), frames=4, stride=1, moments=moments)
        few, many = (clip.draw(n, torch.Generator().manual_seed(3)) for n in (3, 6))
        whole = clip(*clip.read(*videos.fetch(torch.arange(6)), many), draws=many)
        part = clip(*clip.read(*videos.fetch(torch.arange(3)), few), draws=few)
        rows = clip(*videos.fetch(torch.arange(2, 4)), draws=many.rows(slice(2, 4)))
        for v in range(2):
            torch.testing.assert_close(part[v], whole[v][:3])
            torch.testing.assert_close(rows[v], whole[v][2:4])
        (held,) = videos.fetch(torch.arange(6))  # as pairs of kinds hand them over: read when they are seen
        assert all(torch.equal(a, b) for a, b in zip(clip(held, draws=many), whole, strict=True))


def test_moments_are_the_same_frames_of_another_camera() -> None:
    one, two = numbered(30, 8), 255 - numbered(30, 8)
    videos = open_videos([one, two, one[:20]])
    videos.sequence = torch.tensor([4, 4, -1])
    clip = ClipViews(named.tcn(8), frames=4, stride=2, moments=True)
    draws = clip.draw(3, torch.Generator().manual_seed(0))
    a, b, _ = clip.read(*videos.fetch(torch.arange(3)), draws)
    levels = [part[:, :, 0, 0, 0].int() for part in (a, b)]
    assert torch.equal(levels[0][:2] + levels[1][:2], torch.full((2, 4), 255))
    assert torch.equal(levels[0][2], levels[1][2])  # it has no other


def test_lost_videos_are_those_of_their_places() -> None:
    videos = open_videos(list(moving(3, 8)))

    class Gone(Held):
        def frames(self, which: object, side: int) -> np.ndarray:
            raise ValueError("gone")

    videos.films[1] = Gone(moving(1, 8)[0])
    with pytest.raises(Lost) as lost:
        views.plain(8, 4, 1).read(*videos.fetch(torch.tensor([2, 1])), None)
    assert lost.value.at == {1: ("1", "gone")}
