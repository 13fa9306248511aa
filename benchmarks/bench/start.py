"""CPU seconds until something happens, each in a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.bench.results import Found, Setting
from benchmarks.bench.timing import OURS, Contender, Run, compare

TORCH = "import torch"

FIRST_STEP = """
import os
from nearfar.methods.simclr import SimCLR
SimCLR.after_step = lambda self, step: os._exit(0)
from nearfar.cli.main import main
main(["train", "simclr", "drawings", "--out", {out!r}])
os._exit(1)
"""


def fresh(code: str) -> Run:
    """Run the code in a new interpreter, and see that it went well."""
    return lambda: subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def children() -> float:
    """CPU seconds of all processes that this one started and that have ended."""
    spent = os.times()
    return spent.children_user + spent.children_system


def contenders(folder: Path) -> dict[str, Contender]:
    def first_step() -> Run:
        count = iter(range(1_000_000))
        return lambda: fresh(FIRST_STEP.format(out=str(folder / f"run-{next(count)}")))()

    def lightly() -> Run:
        import importlib.util

        if importlib.util.find_spec("lightly") is None:
            raise ImportError("lightly", name="lightly")
        return fresh("import lightly.loss")

    rooms = ["assignment", "distance", "pairwise", "redundancy", "supervised"]
    return {
        "python": lambda: fresh("pass"),
        TORCH: lambda: fresh("import torch"),
        "import nearfar": lambda: fresh("import nearfar"),
        "import nearfar.losses (all)": lambda: fresh("; ".join(f"import nearfar.losses.{room}" for room in rooms)),
        "import lightly.loss": lightly,
        "nearfar --help": lambda: fresh("from nearfar.cli.main import main; main(['--help'])"),
        "nearfar train simclr --help": lambda: fresh(
            "from nearfar.cli.main import main; main(['train', 'simclr', '--help'])"
        ),
        f"{OURS} train simclr drawings, 1 step": first_step,
    }


def measure(setting: Setting) -> Found:
    """Seconds on one CPU, over those of importing torch."""
    found = Found()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        row = compare(
            "start, CPU seconds",
            {},
            contenders(Path(folder)),
            clock=children,
            seconds=30,
            least=1 if setting.quick else 5,
            most=5,
            warm=not setting.quick,
            reference=TORCH,
        )
    row.notes.append(f"{time.perf_counter() - began:.0f} s in all")
    found.add(row, "start")
    seconds = {name: spread.median for name, spread in row.seconds.items()}
    found.number("CPU seconds, nearfar --help", seconds["nearfar --help"])
    found.number("CPU seconds, nearfar.losses above torch", seconds["import nearfar.losses (all)"] - seconds[TORCH])
    return found
