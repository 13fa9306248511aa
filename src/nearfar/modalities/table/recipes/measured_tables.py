"""Tables, trained for seconds to minutes: what was chosen by measurement on many tables (docs/results.md).

Recipes of papers, which are for long runs, stay by name: --recipe paper.
"""

from __future__ import annotations

from typing import Any

from nearfar.modalities.table.settings import Facts, Settings
from nearfar.settings import Recipe

STEPS = 1000
"""Of a run whose epochs are not given: of small networks on rows, more made no table better."""

REASONS = {
    "encoder": "what a row says stays beside what is learned of it, so that little can be lost",
    "numbers": "a linear classifier of pieces can bend where the data are",
}


def _recipe(facts: Facts, method: dict[str, Any] | None = None) -> Recipe:
    batch = facts.batch or 128
    per_epoch = max(1, facts.samples // min(batch, max(facts.samples, 1)))
    epochs = facts.epochs or min(200, max(3, round(STEPS / per_epoch)))
    settings = Settings(
        encoder="kept",
        numbers="piecewise",
        views="scarf",
        corruption=0.3,
        optimizer="adamw",
        lr=2e-3,
        weight_decay=1e-2,
        warmup=epochs / 10,
        batch=batch,
        epochs=epochs,
    )
    return Recipe(settings=settings, method=method or {}, reasons=REASONS)


def default(facts: Facts) -> Recipe:
    return _recipe(facts)


def simclr(facts: Facts) -> Recipe:
    return _recipe(facts, {"temperature": 0.2})


def moco(facts: Facts) -> Recipe:
    return _recipe(facts, {"queue": 1024, "momentum": 0.97, "temperature": 0.2})


def byol(facts: Facts) -> Recipe:
    return _recipe(facts, {"hidden": 512, "momentum": 0.97})


def swav(facts: Facts) -> Recipe:
    return _recipe(facts, {"prototypes": 100, "hidden": 512, "epsilon": 0.03})


def barlow(facts: Facts) -> Recipe:
    return _recipe(facts, {"dim": 256})


def supcon(facts: Facts) -> Recipe:
    return _recipe(facts, {"temperature": 0.1, "base_temperature": 0.07})
