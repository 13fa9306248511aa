"""Rows of a table: corrupted columns (SCARF, arXiv 2106.15147), a small network, a minute or two on a CPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nearfar.modalities.image.recipes import small_images
from nearfar.modalities.table.settings import Settings
from nearfar.settings import Recipe


def _of(recipe: Recipe, **method: Any) -> Recipe:
    return replace(recipe, settings=default().settings, method=recipe.method | method)


def default() -> Recipe:
    """SCARF's network, views and rate; its batch of 128."""
    return Recipe(
        settings=Settings(
            encoder="mlp",
            views="scarf",
            epochs=10,
            batch=128,
            optimizer="adamw",
            lr=2e-3,  # 1e-3 for a batch of 128
            weight_decay=1e-4,
        )
    )


def simclr() -> Recipe:
    """SCARF, in both directions."""
    return _of(small_images.simclr(), temperature=1.0)


def moco() -> Recipe:
    return _of(small_images.moco(), temperature=0.1)


def byol() -> Recipe:
    return _of(small_images.byol())


def swav() -> Recipe:
    return _of(small_images.swav())


def barlow() -> Recipe:
    return _of(small_images.barlow())


def supcon() -> Recipe:
    return _of(small_images.supcon())


def crossentropy() -> Recipe:
    recipe = _of(small_images.crossentropy())
    return replace(recipe, settings=replace(recipe.settings, views="corrupted", view_count=1))
