"""Tables, trained for seconds to minutes: what was chosen by measurement on many tables (docs/results.md).

Measured was simclr; the other methods have its network, views and rates, and arguments of their own for so few steps.
Recipes of papers, which are for long runs, stay by name: --recipe paper.
"""

from __future__ import annotations

from typing import Any

from nearfar.modalities.table.settings import Facts, Settings
from nearfar.settings import Recipe

STEPS = 500
"""Of a run whose epochs are not given: those that were measured."""

REASONS = {
    "encoder": "what a row says stays beside what is learned of it, so that little can be lost",
    "epochs": "more steps made no table better",
    "numbers": "a linear classifier of pieces can bend where the data are",
}


def _recipe(facts: Facts, method: dict[str, Any] | None = None) -> Recipe:
    batch = facts.batch or 128
    epochs = facts.epochs_of(STEPS, batch, fewest=3, most=200)
    settings = Settings(
        encoder="kept",
        numbers="standard" if facts.own_encoder else "piecewise",  # a module is made for so many inputs
        views="scarf",
        corruption=0.3,
        optimizer="adamw",
        lr=6e-4,
        weight_decay=1e-2,
        warmup=epochs / 10,
        batch=batch,
        epochs=epochs,
    )
    reasons = {"epochs": REASONS["epochs"]} if facts.own_encoder else REASONS
    return Recipe(settings=settings, method=method or {}, reasons=reasons)


def default(facts: Facts) -> Recipe:
    return _recipe(facts)


def simclr(facts: Facts) -> Recipe:
    return _recipe(facts, {"temperature": 0.2})


def moco(facts: Facts) -> Recipe:
    return _recipe(facts, {"queue": facts.queue(), "momentum": 0.97, "temperature": 0.2})


def byol(facts: Facts) -> Recipe:
    return _recipe(facts, {"hidden": 512, "momentum": 0.97})


def swav(facts: Facts) -> Recipe:
    return _recipe(facts, {"prototypes": 100, "hidden": 512, "epsilon": 0.03})


def barlow(facts: Facts) -> Recipe:
    return _recipe(facts, {"dim": 256})


def supcon(facts: Facts) -> Recipe:
    return _recipe(facts, {"temperature": 0.1, "base_temperature": 0.07})
