"""Samples for the grid of methods and kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def few(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Sixteen rows of numbers and words, of three classes, and what is set to train on them."""
    rows = [f"{i % 5},{i * i % 7 / 3:.2f},{'' if i % 6 == 0 else i},{'abc'[i % 3]},{'xyz'[i % 3]}" for i in range(16)]
    path = folder / "rows.csv"
    path.write_text("\n".join(["one,two,three,word,label", *rows]) + "\n", encoding="utf-8")
    return path, {"encoder": "mlp-16x1"}
