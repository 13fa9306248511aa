"""Graphs: GIN and the views of GraphCL's unsupervised recipe (arXiv 2010.13902), a minute or two on a CPU."""

from __future__ import annotations

from typing import Any

from nearfar.modalities.graph.settings import Facts, Settings
from nearfar.settings import Recipe


def _recipe(method: dict[str, Any] | None = None, **changed: Any) -> Recipe:
    settings: dict[str, Any] = {
        "epochs": 20,
        "batch": 128,
        "optimizer": "adam",
        "lr": 2e-2,  # 0.01 at a batch of 128
        "weight_decay": 0.0,
        "warmup": 0.0,
        "floor": 1.0,
    }
    return Recipe(settings=Settings(**settings | changed), method=method or {})


def default() -> Recipe:
    return _recipe()


def graphcl() -> Recipe:
    """The first view is the graph as it is."""
    return _recipe(changed="second")


def simclr() -> Recipe:
    return _recipe({"temperature": 0.2})


def dcl() -> Recipe:
    return _recipe({"temperature": 0.2})


def hcl() -> Recipe:
    return _recipe({"temperature": 0.2})


def moco(facts: Facts) -> Recipe:
    return _recipe({"queue": facts.queue(1024), "momentum": 0.99, "temperature": 0.2})


def byol() -> Recipe:
    return _recipe({"hidden": 256, "momentum": 0.99})


def barlow() -> Recipe:
    return _recipe({"dim": 256})


def supcon() -> Recipe:
    return _recipe({"temperature": 0.2})
