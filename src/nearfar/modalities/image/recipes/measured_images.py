"""Images, trained for minutes to hours: what was chosen by measurement on many data sets (docs/results.md).

Recipes of papers, which are for long runs, stay by name: --recipe paper.
"""

from __future__ import annotations

import math
from typing import Any

from nearfar.modalities.image.settings import Facts, Settings
from nearfar.settings import Recipe

STEPS = 2000
"""Of a run whose epochs are not given."""


def _recipe(facts: Facts, method: dict[str, Any] | None = None, *, most: int = 256, **changed: Any) -> Recipe:
    """AdamW, and eight steps an epoch or more.

    most: samples in a step.
    """
    batch = facts.batch or min(most, max(16, 2 ** int(math.log2(max(facts.samples / 8, 2.0)))))
    per_epoch = max(1, facts.samples // batch)
    epochs = facts.epochs or min(300, max(10, round(STEPS / per_epoch)))
    small = facts.device == "cpu" and facts.size <= 64
    settings = {
        "encoder": "conv4" if small else "resnet18",
        "views": facts.views,
        "optimizer": "adamw",
        "lr": 2e-3,
        "weight_decay": 1e-2,
        "warmup": epochs / 10,
        "batch": batch,
        "epochs": epochs,
    }
    reasons = {"views": facts.why_views} if facts.why_views else {}
    if small:
        reasons["encoder"] = "a network that trains in minutes on a CPU"
    return Recipe(settings=Settings(**settings | changed), method=method or {}, reasons=reasons)


def simclr(facts: Facts) -> Recipe:
    return _recipe(facts, {"temperature": 0.2})


def moco(facts: Facts) -> Recipe:
    return _recipe(facts, {"queue": 4096, "momentum": 0.99, "temperature": 0.2})


def byol(facts: Facts) -> Recipe:
    return _recipe(facts, {"hidden": 1024, "momentum": 0.97}, most=64)


def swav(facts: Facts) -> Recipe:
    return _recipe(facts, {"prototypes": 100, "hidden": 512, "epsilon": 0.03})


def barlow(facts: Facts) -> Recipe:
    return _recipe(facts, {"dim": 1024}, lr=1e-3)


def supcon(facts: Facts) -> Recipe:
    return _recipe(facts, {"temperature": 0.1, "base_temperature": 0.07})
