"""Samples for the grid of methods and kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .small import reviews


def few(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Sixteen sentences, of two classes, and what is set to train on them."""
    return reviews(folder / "reviews.csv", 16), {"encoder": "bert-1x16", "length": 16, "vocabulary": 200}
