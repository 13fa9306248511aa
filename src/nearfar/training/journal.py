"""The numbers of a run, one JSON object a line."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

from nearfar.files import from_json, replace_text, room_for, to_json


class Journal:
    """`metrics.jsonl`: lines with a `step`, in order, each with a checksum.

    A line is written at once, so that a killed run keeps it; `sync` brings all of them to the disk, so that a machine
    that loses its power keeps them too. JSON has no infinite numbers: they, and nan, are written as null.
    damaged: lines that were left out when the file was last read, as they are not as they were written.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.damaged = path, 0

    def write(self, line: Mapping[str, object]) -> None:
        sound = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()}
        with room_for(self.path), open(self.path, "ab") as file:
            file.write(f"{to_json(sound)}\n".encode())

    def sync(self) -> None:
        """Return when all lines are on the disk."""
        if self.path.exists():
            with room_for(self.path), open(self.path, "rb+") as file:
                os.fsync(file.fileno())

    def read(self) -> list[dict[str, float]]:
        """All lines but those that are damaged, such as a last one that was cut short by a crash."""
        lines, self.damaged = [], 0
        for text in self.path.read_bytes().split(b"\n") if self.path.exists() else []:
            try:
                if text.strip():
                    lines.append(_line(text))
            except (ValueError, RecursionError):
                self.damaged += 1
        return lines

    def note(self) -> str:
        """A sentence on the lines that were left out; "" where there were none."""
        some = f"{self.damaged} line{'s' * (self.damaged > 1)} of {str(self.path)!r}"
        return f"{some} had been damaged or cut short, and left out." if self.damaged else ""

    def cut(self, step: int) -> None:
        """Forget every line after `step`: they will be made again."""
        kept = [line for line in self.read() if line["step"] <= step]
        replace_text(self.path, "".join(f"{to_json(line)}\n" for line in kept))


def _line(text: bytes) -> dict[str, float]:
    line = from_json(text)
    if not isinstance(line.get("step"), int | float):
        raise ValueError("it has no step")
    return line
