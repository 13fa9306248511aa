"""How numbers, durations and settings are written on a page. Templates use these as filters."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

Cell = Mapping[str, float | None]
"""A measured number: "value", and "low" and "high", the ends of its 95 % interval; each may be None."""


def decimals(values: Iterable[float | None], column: str = "") -> int:
    """How many decimals a column of numbers needs. All of it get the same, so that digits align."""
    known = [abs(v) for v in values if v is not None]
    if all(v == int(v) for v in known):
        return 0
    return 1 if max(known) >= 10 or "%" in column else 3


def number(value: float | None, places: int = 3) -> str:
    """A number with thousands apart and a true minus sign; a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:,.{places}f}".replace("-", "−")


def signed(value: float, places: int = 1) -> str:
    """A difference, with its sign."""
    return f"{value:+,.{places}f}".replace("-", "−")


def interval(cell: Cell, places: int) -> str:
    """The 95 % interval of a value, or nothing."""
    low, high = cell.get("low"), cell.get("high")
    return "" if low is None or high is None else f"{number(low, places)} to {number(high, places)}"


def duration(seconds: float) -> str:
    """Seconds as "41 s", "3 min 12 s" or "2 h 5 min"."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def flat(tree: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, str]]:
    """The leaves of nested mappings as text, with dotted names."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{above}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            yield f"{above}{key}", text


def protocol(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How a result was measured: names and values, without those that are empty, numbers to four digits."""
    short = {name: _short(value) for name, value in (result.get("protocol") or {}).items()}
    return [(name, value) for name, value in flat(short) if value not in ("", "[]")]


def code_parts(sentence: str) -> list[tuple[str, bool]]:
    """A sentence in parts, each with whether it stood in backticks and is to be set as code."""
    return [(part, i % 2 == 1) for i, part in enumerate(re.split(r"`([^`]+)`", sentence)) if part]


def _short(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _short(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_short(inner) for inner in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
