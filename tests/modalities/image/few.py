"""Samples for the grid of methods and kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def few(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Sixteen colored squares of 16 px, of three classes, and what is set to train on them."""
    rng = np.random.default_rng(0)
    color = rng.integers(0, 200, (16, 1, 1, 3)) + 20 * (np.arange(16) % 3)[:, None, None, None]
    images = np.clip(color + rng.integers(-20, 20, (16, 16, 16, 3)), 0, 255).astype(np.uint8)
    np.savez(folder / "images.npz", images=images, labels=np.arange(16) % 3)
    return folder / "images.npz", {"encoder": "conv4", "size": 16}
