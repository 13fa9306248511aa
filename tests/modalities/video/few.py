"""Samples for the grid of methods and kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .small import array_file


def few(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Sixteen videos of 8 frames, of four classes, and what is set to train on them."""
    data = array_file(folder / "videos.npz", 16)
    return data, {"encoder": "slow18x4", "size": 16, "clip_frames": 8, "stride": 1}
