"""The configurations that are tried: by method, the old default first. Chosen among on other data sets than the judged.

A value that is a function is one of the number of steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

OLD = "paper"
"""The recipe `small_images`, as it is, but for the encoder and the number of epochs."""
ADAMW: dict[str, Any] = {"optimizer": "adamw", "lr": 3e-3, "weight_decay": 1e-2, "batch": 128}


def _over(base: dict[str, Any], *views: str) -> dict[str, dict[str, Any]]:
    """A configuration for each of some views, by their name."""
    return {name: base | {"views": name} for name in views}


def _varied(base: dict[str, Any], views: Sequence[str], *changes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Some views with one thing changed, which the name says after a dash: its values, joined."""
    made = {}
    for name in views:
        for change in changes:
            words = "-".join(f"{key}{value:g}" for key, value in change.items())
            made[f"{name}-{words}"] = base | {"views": name} | change
    return made


BATCH64 = {"batch": 64, "lr": 4.2e-3}
BATCH32 = {"batch": 32, "lr": 6e-3}
COLDER, WARMER = {"temperature": 0.1}, {"temperature": 0.5}
SLOWER = {"momentum": 0.99}
FASTER = {"lr": 6e-3}
ONE = {"splits": 1}
BOTH = {"symmetric": True}
"""Both views as queries, at twice the cost of a sample: so half the steps."""


def _follows(steps: int) -> float:
    """The momentum of a slow copy that follows within some twenty steps."""
    return round(max(0.9, 1 - 20 / steps), 4)


VIEWS = ("simclr", "colorful", "drawing", "sign", "crops", "photo", "turned", "shifts", "signs")
BEST = ("simclr", "colorful", "drawing", "sign")
"""Those of them that were best on some set with SimCLR: other methods are tried with these alone."""
SIMCLR = ADAMW | {"temperature": 0.2}
MOCO = ADAMW | {"temperature": 0.2, "queue": 1024, "momentum": 0.9}
BYOL = ADAMW | {"hidden": 1024, "momentum": 0.9}
SWAV = ADAMW | {"prototypes": 100, "hidden": 512, "epsilon": 0.03}
BARLOW = ADAMW | {"dim": 1024}
SUPCON = ADAMW | {"temperature": 0.1}

CANDIDATES: dict[str, dict[str, dict[str, Any]]] = {
    "simclr": {
        OLD: {},
        **_over(SIMCLR, *VIEWS),
        **_varied(SIMCLR, ("colorful", "sign"), BATCH64, COLDER, WARMER, FASTER),
        "simclr-batch256": SIMCLR | {"batch": 256, "lr": 2e-3, "views": "simclr"},
        "colorful-batch256": SIMCLR | {"batch": 256, "lr": 2e-3, "views": "colorful"},
    },
    "moco": {
        OLD: {},
        **_over(MOCO, *BEST),
        **_varied(MOCO, ("colorful",), {"queue": 256}, SLOWER),
        **_varied(MOCO | {"queue": 256}, ("colorful", "sign"), ONE, ONE | BOTH, ONE | BOTH | BATCH64),
        **{f"{views}-follows": MOCO | {"queue": 256, "views": views, "momentum": _follows} for views in BEST},
    },
    "byol": {
        OLD: {},
        **_over(BYOL, *BEST),
        **_varied(BYOL, ("colorful", "sign"), BATCH32, SLOWER, BATCH64 | {"momentum": 0.97}),
        **{f"{views}-batch64-follows": BYOL | BATCH64 | {"views": views, "momentum": _follows} for views in BEST},
    },
    "swav": {OLD: {}, **_over(SWAV, *BEST)},
    "barlow": {OLD: {}, **_over(BARLOW, *BEST)},
    "supcon": {OLD: {}, **_over(SUPCON, *BEST), **_varied(SUPCON, BEST, {"norm": True})},
}
