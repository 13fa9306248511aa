"""The configurations that are tried: by method, the old default first. Chosen among on other data sets than the judged.

A value that is a function is one of the number of steps.
"""

from __future__ import annotations

from typing import Any

OLD = "paper"
"""The recipe `small_images`, as it is, but for the encoder and the number of epochs."""
ADAMW: dict[str, Any] = {"optimizer": "adamw", "lr": 2e-3, "weight_decay": 1e-2, "batch": 256}

CANDIDATES: dict[str, dict[str, dict[str, Any]]] = {
    "simclr": {
        OLD: {},
        "simclr": ADAMW | {"views": "simclr", "temperature": 0.2},
        "mild": ADAMW | {"views": "mild", "temperature": 0.2},
        "drawing": ADAMW | {"views": "drawing", "temperature": 0.2},
        "mild_upright": ADAMW | {"views": "mild_upright", "temperature": 0.2},
        "crops": ADAMW | {"views": "crops", "temperature": 0.2},
        "turns": ADAMW | {"views": "turns", "temperature": 0.2},
        "shifts": ADAMW | {"views": "shifts", "temperature": 0.2},
        "signs": ADAMW | {"views": "signs", "temperature": 0.2},
    },
    "moco": {OLD: {}},
    "byol": {OLD: {}},
    "swav": {OLD: {}},
    "barlow": {OLD: {}},
    "supcon": {OLD: {}},
}
