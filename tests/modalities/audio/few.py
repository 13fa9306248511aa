"""Samples for the grid of methods and kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .small import folder


def few(path: Path) -> tuple[Any, dict[str, Any]]:
    """Sixteen recordings, of four classes, and what is set to train on them."""
    given = {"encoder": "melconv-8", "bands": 12, "seconds": 0.25, "labels": "folders"}
    return folder(path / "tones", 16), given
