"""How much do the files of the methods repeat each other? The share of repeated lines, and the median length of a file.

    python -m benchmarks.repetition             # src/nearfar/methods
    python -m benchmarks.repetition FOLDER -v   # any folder, with the runs of lines that are repeated

A line counts without the spaces around it, and not at all where it is blank, or belongs to a comment, a docstring or an
import. Signatures count. A line is repeated where it stands in a run of three or more lines that are found, one after
the other, in two files or more.
"""

from __future__ import annotations

import argparse
import ast
import statistics
import sys
from collections import defaultdict
from pathlib import Path

METHODS = Path(__file__).parents[1] / "src" / "nearfar" / "methods"


def code_lines(source: str) -> list[str]:
    """The lines of a file that count, stripped."""
    left_out: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        if text or isinstance(node, ast.Import | ast.ImportFrom):
            left_out |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = [line.strip() for number, line in enumerate(source.splitlines(), 1) if number not in left_out]
    return [line for line in lines if line and not line.startswith("#")]


def repeated_lines(files: dict[str, list[str]], run: int = 3) -> dict[str, list[int]]:
    """Of each file the places of its lines that stand in a run of so many lines which another file has too."""
    homes: dict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    for name, lines in files.items():
        for start in range(len(lines) - run + 1):
            homes[tuple(lines[start : start + run])].append((name, start))
    repeated: dict[str, set[int]] = {name: set() for name in files}
    for places in homes.values():
        if len({name for name, _ in places}) > 1:
            for name, start in places:
                repeated[name] |= set(range(start, start + run))
    return {name: sorted(places) for name, places in repeated.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=METHODS)
    parser.add_argument("-v", "--verbose", action="store_true", help="show the repeated lines of each file")
    arguments = parser.parse_args()
    paths = sorted(arguments.folder.glob("[!_]*.py"))
    files = {path.stem: code_lines(path.read_text(encoding="utf-8")) for path in paths}
    repeated = repeated_lines(files)
    if arguments.verbose:
        for name, places in repeated.items():
            print(f"{name}: {len(places)} of {len(files[name])}")
            print(*(f"    {files[name][place]}" for place in places), sep="\n")
    lines, again = sum(map(len, files.values())), sum(map(len, repeated.values()))
    lengths = [len(path.read_text(encoding="utf-8").splitlines()) for path in paths]
    print(f"{again} of {lines} lines are repeated: {again / lines:.1%}")
    print(f"{len(paths)} files, of {statistics.median(lengths):g} lines in the median, {max(lengths)} at most")
    return 0


if __name__ == "__main__":
    sys.exit(main())
