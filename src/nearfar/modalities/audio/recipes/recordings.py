"""Recordings: a small network on log-mel, AdamW, minutes on a CPU.

What is set follows from the number of steps that will be made. Encoder and views were chosen with simclr, on 200 and
1,000 spoken digits (docs/results.md).
"""

from __future__ import annotations

import math
from typing import Any

from nearfar.modalities.audio.settings import Facts, Settings
from nearfar.settings import Recipe

STEPS = 500
"""Of a run whose epochs are not given."""


def _recipe(
    facts: Facts, method: dict[str, Any] | None = None, *, most: int = 128, rate: float = 1e-3, **changed: Any
) -> Recipe:
    """Eight steps an epoch or more.

    most: samples in a step.  rate: peak for 128 samples; it grows with their root.
    """
    batch = facts.batch_of(most, least=32)
    epochs = _epochs(facts, batch)
    settings: dict[str, Any] = {
        "batch": batch,
        "epochs": epochs,
        "warmup": epochs / 10,
        "optimizer": "adamw",
        "lr": round(2 * rate * math.sqrt(128 / batch), 5),  # for 256: settings scale it in proportion to the batch
        "weight_decay": 1e-2,
    }
    return Recipe(settings=Settings(**settings | changed), method=method or {})


def _epochs(facts: Facts, batch: int) -> int:
    return facts.epochs_of(STEPS, batch, fewest=10, most=200)


def _momentum(facts: Facts) -> float:
    batch = facts.batch_of(128, least=32)
    return facts.momentum(_epochs(facts, batch) * facts.per_epoch(batch), highest=0.99)


def default(facts: Facts) -> Recipe:
    return _recipe(facts)


def simclr(facts: Facts) -> Recipe:
    return _recipe(facts, {"temperature": 0.2})


def dcl(facts: Facts) -> Recipe:
    return _recipe(facts, {"temperature": 0.2})


def moco(facts: Facts) -> Recipe:
    return _recipe(facts, {"queue": facts.queue(), "momentum": _momentum(facts), "temperature": 0.2})


def byol(facts: Facts) -> Recipe:
    return _recipe(facts, {"hidden": 1024, "momentum": _momentum(facts)})


def barlow(facts: Facts) -> Recipe:
    return _recipe(facts, {"dim": 1024})


def supcon(facts: Facts) -> Recipe:
    return _recipe(facts, {"temperature": 0.1})


def cpc(facts: Facts) -> Recipe:
    """Recordings as they are but for their place; later steps are predicted."""
    own: dict[str, Any] = {"encoder": "melgru-128", "views": "crop", "view_count": 1}
    return _recipe(facts, {"skip": 2, "steps": 6}, most=64, rate=1.4e-3, **own)
