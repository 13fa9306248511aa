"""Views of videos: which frames of each are read, and what is done to them.

A view is a clip, N x T x 3 x size x size. What is done to its frames is a view of images, with one set of draws for all
frames of a clip, so that nothing moves that did not move before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.modalities.image import views as images
from nearfar.modalities.image.plan import ALL, FIELDS, STEPS
from nearfar.modalities.image.plan import Draws as FrameDraws
from nearfar.modalities.video.samples import Unread, Videos

COLORS = (*STEPS["color"], "blur")
"""The fields that decide what a frame looks like, not which part of it is seen."""


@dataclass(frozen=True, slots=True)
class Draws:
    """space: N x V x frames drawn for (T, or 1 for all) x `FIELDS`.  time: N x V + 2, by which clips begin where they
    do, and which camera is taken. Uniform numbers, on the CPU."""

    space: Tensor
    time: Tensor

    def __len__(self) -> int:
        return len(self.time)

    def rows(self, rows: slice) -> Draws:
        return Draws(self.space[rows], self.time[rows])


class ClipViews:
    """V clips of each video.

    space: what is done to the frames of each clip.  frames: T.  stride: from one to the next, in frames of the video.
    power: the first two clips are k frames apart with density (1 - k / m) ** power, m being the places where a clip may
        begin; further clips begin anywhere.  consistent: one set of draws for all frames of a clip; with frame_colors
        but for `COLORS`, which each frame has of its own.
    moments: all clips show the same frames, and each the next camera of its sequence, where there are several.
    """

    def __init__(
        self,
        space: images.Views,
        *,
        frames: int,
        stride: int,
        power: float = 1.0,
        consistent: bool = True,
        frame_colors: bool = False,
        moments: bool = False,
    ) -> None:
        self.space, self.frames, self.stride = space, frames, stride
        self.power, self.consistent, self.frame_colors, self.moments = power, consistent, frame_colors, moments

    def __len__(self) -> int:
        return len(self.space)

    def draw(self, n: int, generator: torch.Generator) -> Draws:
        """Draw for n videos from a CPU generator. The first rows do not depend on n."""
        views, drawn = len(self), 1 if self.consistent and not self.frame_colors else self.frames
        fields = ALL if self.space.further else FIELDS
        width = drawn * sum(fields.values())
        numbers = torch.rand(n, views * width + views + 2, generator=generator)
        space = numbers[:, : views * width].unflatten(1, (views, drawn, -1))  # N x V x T x fields
        if self.consistent and drawn > 1:
            for name, field in zip(fields, space.split(list(fields.values()), 3), strict=True):
                if name not in COLORS:
                    field.copy_(field[:, :, :1].clone())
        return Draws(space, numbers[:, views * width :])

    def starts(self, lengths: Tensor, draws: Draws | None) -> Tensor:
        """The first frame of each clip, of videos of these lengths: N x V, int64; without draws the middle ones."""
        places = lengths - (self.frames - 1) * self.stride  # where a clip may begin
        if draws is None:
            return ((places - 1).clamp(min=0) // 2)[:, None].expand(-1, len(self))
        room = torch.where(places > 0, places, lengths).double()
        time = draws.time.double()
        starts = (time[:, : len(self)] * room[:, None]).long()
        if self.moments:
            return starts[:, :1].expand(-1, len(self))
        if len(self) > 1:
            apart = (room * (1 - (1 - time[:, 1]) ** (1 / (self.power + 1)))).long()
            first = (time[:, 0] * (room - apart)).long()
            swapped = time[:, -1] < 0.5
            near = torch.stack([first + apart * swapped, first + apart * ~swapped], 1)
            starts[:, :2] = torch.where((places > 0)[:, None], near, starts[:, :2])
        return starts

    def cameras(self, samples: Videos, index: Tensor, draws: Draws | None) -> Tensor:
        """Which video each clip is of: N x V positions, the first the sample's own."""
        own = index[:, None].repeat(1, len(self))
        if not self.moments or draws is None:
            return own
        for i, row in enumerate(index.tolist()):
            number = int(samples.sequence[row])
            others = (samples.sequence == number).nonzero()[:, 0] if number != MISSING else index[:0]
            others = others[others != row]
            if len(others):
                turn = int(draws.time[i, -2].double() * len(others))
                own[i, 1:] = others[(turn + torch.arange(len(self) - 1)) % len(others)]
        return own

    def read(self, unread: Unread, draws: Draws | None = None) -> tuple[Tensor, ...]:
        """The frames that these draws ask for: V of N x T x 3 x S x S, uint8, and the aspects of each, N x V."""
        samples, index = unread.samples, unread.index
        cameras = self.cameras(samples, index, draws)
        lengths = samples.lengths
        starts = self.starts(lengths[cameras].amin(1), draws)
        which = starts[:, :, None] + self.stride * torch.arange(self.frames)
        which = (which % lengths[cameras][:, :, None]).tolist()  # short videos begin again
        # Clips of one video are read in one go.
        asked = [(row, clips) for row, clips in zip(cameras.tolist(), which, strict=True)]
        if all(len(set(row)) == 1 for row, _ in asked):
            read = samples.read([(row[0], [f for clip in clips for f in clip]) for row, clips in asked])
            clips = read.unflatten(1, (len(self), self.frames)).unbind(1)
        else:
            clips = [samples.read([(row[v], own[v]) for row, own in asked]) for v in range(len(self))]
        return *clips, samples.aspect[cameras]

    @torch.no_grad()
    def __call__(self, *inputs: Tensor | Unread, draws: Draws | None = None) -> list[Tensor]:
        """V clips, N x T x 3 x size x size, float32 in [0, 1], on the device of the frames.

        inputs: as `read` gives them; or as the videos are fetched, of which the frames are read now.
        """
        if isinstance(inputs[0], Unread):
            inputs = self.read(inputs[0], draws)
        *clips, aspect = (part for part in inputs if isinstance(part, Tensor))
        return [self._seen(v, frames, aspect[:, v], draws) for v, frames in enumerate(clips)]

    def _seen(self, v: int, frames: Tensor, aspect: Tensor, draws: Draws | None) -> Tensor:
        n, t = frames.shape[:2]
        space = None if draws is None else draws.space[:, v].expand(-1, t, -1).flatten(0, 1)[:, None]
        view = images.Views([self.space.views[v]])
        seen = view(
            frames.flatten(0, 1), aspect.cpu().repeat_interleave(t), None if space is None else FrameDraws(space)
        )
        return seen[0].unflatten(0, (n, t))


def plain(size: int, frames: int, stride: int) -> ClipViews:
    """The one view of a test: the clip in the middle, and of its frames the middle square."""
    return ClipViews(images.plain(size), frames=frames, stride=stride)


def strip(clip: Tensor, most: int = 4) -> Tensor:
    """A clip as one picture, some of its frames side by side: T x C x H x W -> C x H x W'."""
    some = torch.linspace(0, len(clip) - 1, min(most, len(clip))).round().long()
    return torch.cat(list(clip[some]), 2)


def spread(lengths: Tensor, count: int) -> Sequence[list[int]]:
    """So many frames of each video, evenly over its length."""
    return [torch.linspace(0, int(n) - 1, count).round().long().tolist() for n in lengths]
