"""Samples for the grid of methods and kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .small import texts


def few(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Graphs of two classes, and what is set to train on them."""
    return texts(folder / "SMALL", n=16), {"encoder": "gin-2x8"}
