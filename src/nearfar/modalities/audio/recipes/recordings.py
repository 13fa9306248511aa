"""Recordings: a small network on log-mel, AdamW, minutes on a CPU."""

from __future__ import annotations

from typing import Any

from nearfar.modalities.audio.settings import Facts, Settings
from nearfar.settings import Recipe


def _recipe(method: dict[str, Any] | None = None, **changed: Any) -> Recipe:
    settings: dict[str, Any] = {"epochs": 20, "batch": 128, "optimizer": "adamw", "lr": 2e-3, "weight_decay": 1e-2}
    return Recipe(settings=Settings(**settings | changed), method=method or {})


def default() -> Recipe:
    return _recipe()


def simclr() -> Recipe:
    return _recipe({"temperature": 0.2})


def dcl() -> Recipe:
    return _recipe({"temperature": 0.2})


def moco(facts: Facts) -> Recipe:
    return _recipe({"queue": facts.queue(4096), "momentum": 0.99, "temperature": 0.2})


def byol() -> Recipe:
    return _recipe({"hidden": 1024, "momentum": 0.99})


def barlow() -> Recipe:
    return _recipe({"dim": 1024})


def supcon() -> Recipe:
    return _recipe({"temperature": 0.1})


def cpc() -> Recipe:
    """Recordings as they are but for their place; later steps are predicted."""
    return _recipe({"skip": 2, "steps": 6}, encoder="melgru-128", views="crop", view_count=1, batch=64, lr=4e-3)
