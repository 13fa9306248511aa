"""What each set of images of the bench of defaults is taken for, and why: `python -m benchmarks.natures [SET ...]`."""

from __future__ import annotations

import sys

from benchmarks.defaults import sets
from nearfar.modalities.image.nature import nature
from nearfar.modalities.image.samples import Images

COLUMNS = ("mirror_told", "turn_told", "paper", "stroke", "abrupt", "color", "colorful", "found")


def main(names: list[str]) -> int:
    print(f"| set | taken for | views | {' | '.join(COLUMNS)} |")
    print("|---" * (len(COLUMNS) + 3) + "|")
    for name in names or sets.names():
        samples = sets.load(name).train
        if isinstance(samples, Images):
            found = nature(samples)
            numbers = " | ".join(f"{found.measured[column]:.2f}" for column in COLUMNS)
            print(f"| {name} | {found.name} | {found.views} | {numbers} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
