"""One line a kind of fault: how many were injected, how many ended well, how many ended wrong. Wrong must be 0.

python -m benchmarks.faults                       # all kinds, written to benchmarks/results/faults.json
python -m benchmarks.faults flipped_bits --many 500
python -m benchmarks.faults --short               # a few of each; nothing is written
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import tyro

import benchmarks.faults
from benchmarks.bench.results import environment
from benchmarks.faults import Faults
from nearfar.files import replace_text

RESULTS = Path(__file__).parents[1] / "results" / "faults.json"
Kind = Callable[[Faults, Path, random.Random, int], None]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which kinds, and how many faults of each."""

    kinds: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Names of kinds; all if none is named."""
    many: int = 100
    """Faults of each kind, where a fault is cheap."""
    short: bool = False
    """Eight faults of each kind at most; nothing is written."""
    table: bool = False
    """Inject nothing, and print what is written as a table."""
    seed: int = 0
    """Of what is injected where."""


def kinds() -> dict[str, Kind]:
    """Every kind of fault, by name."""
    modules = [
        importlib.import_module(f"benchmarks.faults.{module.name}")
        for module in pkgutil.iter_modules(benchmarks.faults.__path__)
        if module.name != "__main__"
    ]
    return {
        name: function
        for module in modules
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
    }


def run(kind: Kind, many: int, seed: int) -> tuple[Faults, float]:
    """What came of the faults of a kind, and the seconds it took."""
    faults, began = Faults(), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="nearfar-faults-") as folder:
        kind(faults, Path(folder), random.Random(seed), many)
    return faults, time.perf_counter() - began


def table(results: dict[str, Any]) -> str:
    """The results in Markdown."""
    rows = [f"| {k['title']} | {k['injected']} | {k['survived']} | {len(k['wrong'])} |" for k in results["kinds"]]
    return "\n".join(["| fault | injected | survived | wrong |", "|---|---|---|---|", *rows])


def _keep(line: dict[str, Any], known: dict[str, Kind]) -> None:
    """Write the result of one kind in the place of its last one."""
    lines = json.loads(RESULTS.read_text(encoding="utf-8"))["kinds"] if RESULTS.exists() else []
    by_kind = {other["kind"]: other for other in lines} | {line["kind"]: line}
    ordered = [by_kind[kind] for kind in known if kind in by_kind]
    text = json.dumps({**environment(), "command": "python -m benchmarks.faults", "kinds": ordered}, indent=1)
    replace_text(RESULTS, text + "\n")


def main(options: Options) -> int:
    known = kinds()
    if options.table:
        print(table(json.loads(RESULTS.read_text(encoding="utf-8"))))
        return 0
    if unknown := [name for name in options.kinds if name not in known]:
        print(f"there is no kind {unknown[0]!r}; the kinds are {', '.join(known)}", file=sys.stderr)
        return 2
    any_wrong = False
    for name in options.kinds or known:
        faults, seconds = run(known[name], 8 if options.short else options.many, options.seed)
        title = inspect.cleandoc(known[name].__doc__ or name).splitlines()[0]
        print(f"{title:<90} injected {faults.injected:>5}  survived {faults.survived:>5}  wrong {len(faults.wrong):>4}")
        for what in faults.wrong[:5]:
            print(f"    {what}")
        line = {
            "kind": name,
            "title": title,
            "injected": faults.injected,
            "survived": faults.survived,
            "wrong": faults.wrong,
            "seconds": round(seconds, 1),
            "seed": options.seed,
            "date": date.today().isoformat(),
        }
        any_wrong |= bool(faults.wrong)
        if not options.short:
            _keep(line, known)
    return int(any_wrong)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
