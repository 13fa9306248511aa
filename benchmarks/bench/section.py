"""One section in a process of its own: python -m benchmarks.bench.section NAME THREADS OUT [quick] [compile]"""

from __future__ import annotations

import os
import sys
import time
import warnings
from importlib import import_module
from pathlib import Path

from benchmarks.bench.results import Setting, environment, machine_kind, save

SECTIONS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "losses": ("losses", "times", ("one", "all")),
    "memory": ("losses", "peaks", ("all",)),
    "views": ("views", "measure", ("one", "all")),
    "step": ("step", "measure", ("one", "all")),
    "knn": ("knn", "measure", ("one", "all")),
    "linear": ("linear", "measure", ("one", "all")),
    "text": ("text", "measure", ("one",)),
    "mel": ("mel", "measure", ("one",)),
    "start": ("start", "measure", ("one",)),
    "job": ("job", "measure", ("one",)),
    "video": ("video", "measure", ("one",)),
    "graphs": ("graphs", "measure", ("one",)),
    "embeddings": ("embeddings", "measure", ("one",)),
    "gpu": ("gpu", "measure", ("all",)),
}
"""The module and the function of each section, and on how many threads it runs unless told."""


def main(name: str, threads: int, out: Path, options: list[str]) -> None:
    """Measure the section, and save what was found."""
    import torch

    torch.set_num_threads(threads)
    warnings.filterwarnings("ignore")  # those of other libraries; ours are errors in the tests
    file, function, _ = SECTIONS[name]
    setting = Setting(threads=threads, quick="quick" in options, compiled="compile" in options)
    before, began = os.getloadavg(), time.perf_counter()
    found = getattr(import_module(f"benchmarks.bench.{file}"), function)(setting)
    where = environment() | {
        "load_before": [round(load, 2) for load in before],
        "load_after": [round(load, 2) for load in os.getloadavg()],
        "seconds": round(time.perf_counter() - began, 1),
    }
    command = f"python -m benchmarks.bench {name} --threads {threads}" + "".join(f" --{o}" for o in options)
    path = out / f"{name}-{threads}-threads-{machine_kind()}.json"
    save(path, name, setting, command, found, where)
    print(f"{where['seconds']:.0f} s; load {before[0]:.1f} before, {where['load_after'][0]:.1f} after", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
