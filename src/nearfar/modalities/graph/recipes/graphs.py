"""Graphs: GIN and the views of GraphCL's unsupervised recipe (arXiv 2010.13902), a minute or two on a CPU."""

from __future__ import annotations

from typing import Any

from nearfar.modalities.graph.settings import Facts, Settings
from nearfar.settings import Recipe


def _recipe(facts: Facts, method: dict[str, Any] | None = None, **changed: Any) -> Recipe:
    settings: dict[str, Any] = {
        "epochs": 20,
        "batch": facts.batch or min(128, max(2, facts.samples // 2)),  # two steps an epoch at least
        "optimizer": "adam",
        "lr": 2e-2,  # 0.01 at a batch of 128
        "weight_decay": 0.0,
        "warmup": 0.0,
        "floor": 1.0,
    }
    return Recipe(settings=Settings(**settings | changed), method=method or {})


def default(facts: Facts) -> Recipe:
    return _recipe(facts)


def graphcl(facts: Facts) -> Recipe:
    """The first view is the graph as it is."""
    return _recipe(facts, changed="second")


def simclr(facts: Facts) -> Recipe:
    return _recipe(facts, {"temperature": 0.2})


def dcl(facts: Facts) -> Recipe:
    return _recipe(facts, {"temperature": 0.2})


def hcl(facts: Facts) -> Recipe:
    return _recipe(facts, {"temperature": 0.2})


def moco(facts: Facts) -> Recipe:
    return _recipe(facts, {"queue": facts.queue(1024), "momentum": 0.99, "temperature": 0.2})


def byol(facts: Facts) -> Recipe:
    return _recipe(facts, {"hidden": 256, "momentum": 0.99})


def barlow(facts: Facts) -> Recipe:
    return _recipe(facts, {"dim": 256})


def supcon(facts: Facts) -> Recipe:
    return _recipe(facts, {"temperature": 0.2})
