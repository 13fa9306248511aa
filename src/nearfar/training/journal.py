"""The numbers of a run, one JSON object a line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from nearfar.files import replace_text, room_for


class Journal:
    """`metrics.jsonl`: lines with a `step`, in order. A line is written at once, so that a killed run keeps it.

    JSON has no infinite numbers: they, and nan, are written as null.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, line: Mapping[str, object]) -> None:
        sound = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()}
        with room_for(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(sound, allow_nan=False) + "\n")

    def read(self) -> list[dict[str, float]]:
        """All lines; a last line that was cut short by a crash is left out."""
        lines = []
        if self.path.exists():
            for text in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    lines.append(json.loads(text))
                except json.JSONDecodeError:
                    break
        return lines

    def cut(self, step: int) -> None:
        """Forget every line after `step`: they will be made again."""
        kept = [line for line in self.read() if line["step"] <= step]
        replace_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
