"""Videos so small and few that a whole training run takes a second: a square that moves, to one side by its class."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FLAGS = (
    "--encoder",
    "slow18x4",
    "--size",
    "16",
    "--clip-frames",
    "4",
    "--stride",
    "1",
    "--epochs",
    "2",
    "--batch",
    "8",
)
FLAGS += ("--views", "motion")


def moving(n: int = 16, frames: int = 8, side: int = 16) -> np.ndarray:
    """n videos, T x side x side x 3 each: a square in a color of its own that moves right, left, down or up."""
    random = np.random.default_rng(0)
    videos = np.full((n, frames, side, side, 3), 40, np.uint8)
    for i in range(n):
        color, row, column = random.integers(80, 255, 3), *random.integers(0, side, 2)
        down, right = ((0, 1), (0, -1), (1, 0), (-1, 0))[i % 4]
        for t in range(frames):
            y, x = (row + t * down + np.arange(4)) % side, (column + t * right + np.arange(4)) % side
            videos[i, t][np.ix_(y, x)] = color
    return videos


def numbered(frames: int, side: int = 64) -> np.ndarray:
    """A video whose frames tell their number, T x side x side x 3: gray, a step brighter each."""
    level = np.linspace(0, 255, frames).round().astype(np.uint8)
    return np.broadcast_to(level[:, None, None, None], (frames, side, side, 3)).copy()


def write(
    path: Path,
    frames: np.ndarray,
    *,
    codec: str = "libx264",
    options: Mapping[str, str] = {},
    times: list[int] | None = None,
    turned: int = 0,
    rate: int = 25,
    faststart: bool = False,
) -> Path:
    """A file of video.  times: of each frame, in units of 1 / rate seconds.  turned: degrees, in its metadata.
    faststart: with its index at the beginning."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"movflags": "faststart"} if faststart else {}) as container:
        stream: Any = container.add_stream(codec, rate=rate, options=dict(options))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        if turned:
            stream.set_display_rotation(turned)
        for t, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = (t if times is None else times[t]), Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def files(folder: Path, n: int = 16) -> Path:
    """A folder of such files, in one folder a class."""
    for i, video in enumerate(moving(n)):
        write(folder / f"class{i % 4}" / f"{i:02d}.mp4", video)
    return folder


def stills(folder: Path, n: int = 16) -> Path:
    """A folder of folders of their frames."""
    for i, video in enumerate(moving(n)):
        (folder / f"{i:02d}").mkdir(parents=True)
        for t, frame in enumerate(video):
            Image.fromarray(frame).save(folder / f"{i:02d}" / f"{t}.png")
    return folder


def array_file(path: Path, n: int = 16) -> Path:
    """A .npz file of them."""
    np.savez(path, videos=moving(n), labels=np.array(["right", "left", "down", "up"])[np.arange(n) % 4])
    return path
