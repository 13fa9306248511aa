"""Pairs: networks with random weights, and AdamW as CLIP has it (arXiv 2103.00020).

Rates are for some thousand pairs and small networks that are trained from the start; the paper has 5e-4 for a batch of
32,768, which is far less for a batch of 256.
"""

from __future__ import annotations

from typing import Any

from nearfar.modalities.pair.settings import Settings
from nearfar.settings import Recipe


def _recipe(**changed: Any) -> Recipe:
    settings: dict[str, Any] = {
        "epochs": 30,
        "batch": 256,
        "optimizer": "adamw",
        "lr": 1e-3,
        "weight_decay": 0.1,
        "warmup": 3,
        "clip": 1.0,
    }
    return Recipe(settings=Settings(**settings | changed))


def default() -> Recipe:
    """Methods that contrast views with each other see two of each side, side by side."""
    return _recipe(view_count=2)


def clip() -> Recipe:
    return _recipe()


def cmc() -> Recipe:
    return _recipe()


def supportset() -> Recipe:
    return _recipe()
