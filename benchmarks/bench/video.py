"""Clips from a file of video: eight frames of three hundred, beside decoding the whole file for them."""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench.results import Found, Setting
from benchmarks.bench.timing import OURS, Contender, Run, clock_for, compare
from nearfar.modalities.video.films import Coded

FRAMES, CLIP, SIDE, KEYS = 300, 8, 112, 12
WHOLE = "whole file decoded"


def write(path: Path, size: tuple[int, int], frames: int) -> Path:
    """An H.264 file with a key frame in twelve, in which noise moves."""
    import av

    random = np.random.default_rng(0)
    ground = random.integers(0, 255, (size[1], size[0], 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"g": str(KEYS), "preset": "veryfast"})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for t in range(frames):
            frame = av.VideoFrame.from_ndarray(np.roll(ground, 2 * t, 1), format="rgb24")
            frame.pts, frame.time_base = t, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def contenders(path: Path, frames: int) -> dict[str, Contender]:
    """The frames of clips that begin at places spread over the file."""
    starts = np.linspace(0, frames - CLIP, 10).round().astype(int).tolist()

    def whole() -> Run:
        import av

        def once() -> float:
            clips = []
            for start in starts:
                with av.open(str(path)) as container:
                    container.streams.video[0].codec_context.thread_count = 1
                    made = [f.to_ndarray(format="rgb24", width=SIDE, height=SIDE) for f in container.decode(video=0)]
                clips.append(np.stack(made[start : start + CLIP]))
            return float(np.mean(clips))

        return once

    def ours() -> Run:
        film = Coded(path).open()
        return lambda: float(np.mean([film.frames(range(start, start + CLIP), SIDE) for start in starts]))

    return {WHOLE: whole, OURS: ours}


def measure(setting: Setting) -> Found:
    """Ten clips of a file of 340 x 256 px."""
    found = Found()
    frames = 30 if setting.quick else FRAMES
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "a.mp4", (340, 256), frames)
        row = compare(
            f"clips of {CLIP} frames from an mp4, values are mean levels",
            {"Frames": frames, "Side": SIDE, "Key frames": KEYS},
            contenders(path, frames),
            clock=clock_for(setting.threads),
            seconds=0.5 if setting.quick else 4,
            rate=(10, "clips/s"),
        )
        found.add(row, "clips from an mp4")
    return found
