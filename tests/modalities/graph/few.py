"""Sixteen paths and stars of two classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.modalities.graph.small import array_file


def few(folder: Path) -> tuple[str, dict[str, Any]]:
    """The path of an .npz file, and what is set to train a tiny encoder on it."""
    return str(array_file(folder / "graphs.npz", 16)), {"encoder": "gin-2x8"}
