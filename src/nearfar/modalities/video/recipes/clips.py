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


def tcn() -> Recipe:
    """The paper: Adam at a constant rate of 1e-3, here for a batch of 16 videos, and a decay of 1e-6. Its network,
    with the spatial soft-argmax, is an Inception with weights of ImageNet; here it is trained from the start."""
    return _recipe(
        {"hidden": 256},
        encoder="resnet18",
        pooling="softargmax",
        views="tcn",
        batch=16,
        stride=4,
        clip_frames=16,
        optimizer="adam",
        lr=1.6e-2,
        weight_decay=1e-6,
        warmup=0,
        floor=1.0,
    )


def dpc() -> Recipe:
    """The paper, with Adam at 1e-3, a decay of 1e-5 and colors for each frame; it has 8 blocks of 5 frames, every third
    of the video."""
    return _recipe(
        {"blocks": 4, "steps": 1},
        views="motion",
        view_count=1,
        frame_colors=True,
        batch=32,
        clip_frames=16,
        stride=1,
        optimizer="adam",
        lr=8e-3,
        weight_decay=1e-5,
        warmup=0,
    )


def framesorting() -> Recipe:
    return _recipe(views="motion", view_count=1)


def speed() -> Recipe:
    return _recipe(views="motion", view_count=1, stride=1)


def arrowoftime() -> Recipe:
    return _recipe(views="motion", view_count=1)
