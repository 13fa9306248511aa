"""What a network has learned, as arrays to be looked at: pure functions of networks, views and rows."""

from __future__ import annotations

from typing import Literal, get_args

Look = Literal[
    "kernels",
    "features",
    "attention",
    "similarity",
    "neighbors",
    "retrieval",
    "positives",
    "negatives",
    "clusters",
]
"""What can be looked at, by name, in the order of pages."""
LOOKS: tuple[str, ...] = get_args(Look)
