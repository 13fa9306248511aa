"""What is in a set of videos."""

from __future__ import annotations

import math

import torch

from nearfar.errors import counted, listed
from nearfar.modalities.examination import Advice, Examination, common_warnings, equal_samples, labeled, parts
from nearfar.modalities.video.films import Coded
from nearfar.modalities.video.samples import Videos
from nearfar.modalities.video.settings import Settings

FAR = 50
"""Frames from one key frame to the next, above which reading a clip takes long."""

STILL = 2.0
"""Of 255: the mean difference of two frames of a video in which nothing moves."""


def pixel_statistics(samples: Videos, most: int = 500) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, in units of [0, 1], over the middle frames of some videos."""
    some = torch.linspace(0, len(samples) - 1, min(most, len(samples))).round().long()
    pixels = samples.middle(some).transpose(0, 1).flatten(1).double() / 255  # 3 x ...
    std = pixels.std(1, correction=0).clamp(min=0.01)
    return [round(v, 4) for v in pixels.mean(1).tolist()], [round(v, 4) for v in std.tolist()]


def examine(samples: Videos, span: int) -> Examination:
    """Look at every video.  span: frames from the first to the last of a clip."""
    copies, lengths = equal_samples(samples), samples.lengths
    spread = lengths.float().quantile(torch.tensor([0.05, 0.5, 0.95])).tolist()
    short = int((lengths < span).sum())
    coded = [film for film in samples.films if isinstance(film, Coded)]
    gap = [film.length / len(film.keys) for film in coded]
    facts = [
        ("videos", f"{len(samples):,}" + parts(samples)),
        ("frames", f"{spread[1]:.0f} in the middle, {spread[0]:.0f} to {spread[2]:.0f} for nine in ten"),
        ("width / height", f"{float(samples.aspect.median()):.2f} in the middle"),
        *([("key frames", f"one in {sorted(gap)[len(gap) // 2]:.0f} frames")] if gap else []),
        ("kept as", f"squares of {samples.side} px, read anew each time"),
        ("copies", f"{copies.exact:,} the same"),
        ("labeled", labeled(samples)),
    ]
    sound = "no broken files, no copies, no uneven classes, long enough for a clip, something moves"
    examination = Examination(samples=samples, copies=copies, noun="videos", facts=facts, sound=sound)
    said = examination.warnings
    if samples.skipped:
        said.append(f"{counted(len(samples.skipped), 'videos')} cannot be read: {listed(samples.skipped)}.")
        share = len(samples.skipped) / (len(samples) + len(samples.skipped))
        if share > Settings().max_bad:
            reason = f"{share:.1%} of the files cannot be read"
            examination.flags.append(Advice("max_bad", math.ceil(100 * share) / 100, reason))
    if short:
        said.append(
            f"{counted(short, 'videos')} are shorter than the {span} frames of a clip, and begin again within it: give "
            "a smaller --stride or --clip-frames."
        )
    if still := int((_moves(samples) < STILL).sum()):
        said.append(
            f"In {counted(still, 'videos')} hardly anything moves: they teach nothing of motion, and tasks about the "
            "order of frames leave them out."
        )
    if rare := sum(g > FAR for g in gap):
        said.append(
            f"{counted(rare, 'videos')} have a key frame in more than {FAR} frames, from which each clip must be "
            "decoded: ffmpeg -i IN -g 12 OUT writes one in 12, and clips are read several times as fast."
        )
    said.extend(common_warnings(samples, copies, examination.noun))
    return examination


def _moves(samples: Videos, most: int = 200) -> torch.Tensor:
    """By how much two frames of each video differ, a quarter of its length apart, of 255: of so many videos."""
    rows = torch.linspace(0, len(samples) - 1, min(most, len(samples))).round().long()
    wanted = [(i, [samples.films[i].length // 4, samples.films[i].length // 2]) for i in rows.tolist()]
    frames = samples.read(wanted).float()
    return (frames[:, 0] - frames[:, 1]).abs().mean((1, 2, 3))
