"""Sentences: a small BERT with random weights and the views of SimCSE (arXiv 2104.08821), AdamW for its Adam.

Rates are for networks that are trained from the start; one from a folder wants a lower --lr, as the papers have it.
Such a network is also taught by views that are edited, as it finds a sentence again under dropout at once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nearfar.modalities.text.settings import Facts, Settings
from nearfar.settings import Recipe


def _recipe(method: dict[str, Any] | None = None, **changed: Any) -> Recipe:
    settings: dict[str, Any] = {
        "views": "deletion",
        "epochs": 3,
        "batch": 128,
        "optimizer": "adamw",
        "lr": 6e-4,  # 3e-4 for a batch of 128: of those tried, the one at which similarity did not suffer at first
        "weight_decay": 0.01,
        "warmup": 0.3,
        "clip": 1.0,
    }
    return Recipe(settings=Settings(**settings | changed), method=method or {})


def default() -> Recipe:
    return _recipe()


def simcse(facts: Facts) -> Recipe:
    """Of triplets the third sentence is a hard negative. Pairs, and networks from a folder, have dropout alone."""
    if facts.columns > 1 or not facts.fresh:
        return _recipe({"hard_negatives": facts.columns > 2}, views="dropout")
    # On the dev part of STS-B less was learned with weaker deletion, or with a layer behind.
    return _recipe({"hard_negatives": False, "mlp": False}, strength=0.7, lr=2e-3)


def simclr() -> Recipe:
    return _recipe({"temperature": 0.05})


def moco(facts: Facts) -> Recipe:
    return _recipe({"queue": facts.queue(4096), "momentum": 0.99, "temperature": 0.05})


def byol() -> Recipe:
    return _recipe({"hidden": 1024, "momentum": 0.99})


def barlow() -> Recipe:
    return _recipe({"dim": 1024})


def supcon() -> Recipe:
    return _recipe({"temperature": 0.1})


def calm() -> Recipe:
    """Of the three tasks, from the start; the paper starts from T5."""
    return _recipe(encoder="t5", views="concepts", length=48, epochs=5, batch=64, lr=4e-3, warmup=0.1)


def calm_joint() -> Recipe:
    """The joint stage, at a rate a hundredth of that of the mix, as in the paper a thousandth."""
    made = calm()
    return replace(made, settings=replace(made.settings, epochs=1, lr=4e-5), method={"stage": "joint"})
