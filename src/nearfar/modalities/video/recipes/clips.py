"""Clips: what the papers do, at sizes that a CPU can bear where they name none; a warm-up begins at a rate of 0.

The encoder is r3d_18, clips have 8 frames where CVRL takes 16, and epochs are 100 where a recipe names no others.
"""

from __future__ import annotations

from typing import Any

from nearfar.modalities.video.settings import Facts, Settings
from nearfar.settings import Recipe


def _recipe(method: dict[str, Any] | None = None, **changed: Any) -> Recipe:
    settings: dict[str, Any] = {"views": "cvrl", "batch": 64, "lr": 0.06, "weight_decay": 1e-4}
    return Recipe(settings=Settings(**settings | changed), method=method or {})


def default() -> Recipe:
    return _recipe()


def cvrl() -> Recipe:
    """The paper: SGD without Nesterov's momentum, 0.32 for 1024 clips, and a decay of 1e-6."""
    return _recipe(lr=0.08, weight_decay=1e-6, warmup=5)


def moco(facts: Facts) -> Recipe:
    return _recipe({"queue": facts.queue(4096), "momentum": 0.99})


def byol() -> Recipe:
    return _recipe({"hidden": 1024, "momentum": 0.99})


def barlow() -> Recipe:
    return _recipe({"dim": 1024})
