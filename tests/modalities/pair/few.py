"""Samples for the grid of methods and kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .small import rows, table


def few(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Sixteen pairs of three numbers and a caption, of four classes, and what is set to train on them."""
    made = [row | {"split": "train"} for row in rows(16)]
    own = {"pair": "table=r+g+b,text=caption", "encoder": "table=mlp-16x1,text=bert-1x16", "space": 8}
    return table(folder / "pairs.jsonl", made), own
