"""Rows of a table: corrupted columns (SCARF, arXiv 2106.15147), a small network, a minute or two on a CPU."""

from __future__ import annotations

from dataclasses import replace

from nearfar.modalities.table.settings import Settings
from nearfar.settings import Recipe


def default() -> Recipe:
    """SCARF's network, views, rate and batch of 128, with AdamW for its Adam."""
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
    return replace(default(), method={"temperature": 1.0})


def moco() -> Recipe:
    return replace(default(), method={"queue": 4096, "momentum": 0.99, "temperature": 0.1})


def byol() -> Recipe:
    return replace(default(), method={"hidden": 1024, "momentum": 0.99})


def swav() -> Recipe:
    return replace(default(), method={"prototypes": 100, "hidden": 512})


def barlow() -> Recipe:
    return replace(default(), method={"dim": 1024})


def imix() -> Recipe:
    """i-Mix's for CovType (arXiv 2010.08887): its network of an eighth of the width, 100 epochs where it has 500."""
    return Recipe(
        settings=Settings(
            encoder="maxout",
            views="blanked",
            epochs=100,
            batch=512,
            optimizer="sgd",
            lr=0.125,
            weight_decay=1e-4,
            decay_1d=True,
            warmup=5,
        ),
        method={"temperature": 0.1, "alpha": 2.0},
    )


def supcon() -> Recipe:
    return replace(default(), method={"temperature": 0.1, "base_temperature": 0.07})


def crossentropy() -> Recipe:
    return replace(default(), settings=replace(default().settings, views="corrupted", view_count=1))
