"""Peak memory of one piece of work, measured in a fresh process."""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

SHARE = 0.85  # of the free memory that a contender may take
_STATUS = Path("/proc/self/status")

guarded = False
"""Whether this process has a limit of memory, so that what may not fit can be tried."""


def available() -> int:
    """Bytes of memory that are free for use, about."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        return 1024 * _field(meminfo, "MemAvailable")
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def peak() -> int:
    """Bytes: the largest resident size of this process since it started, or since `forget_peak`."""
    if _STATUS.exists():
        # getrusage would tell the parent's peak, if that was larger: Linux hands it on.
        return 1024 * _field(_STATUS, "VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def forget_peak() -> int:
    """Bytes that this process holds now, from which `peak` counts on (on Linux; elsewhere the peak so far)."""
    if _STATUS.exists():
        Path("/proc/self/clear_refs").write_text("5")
    return peak()


def _field(path: Path, name: str) -> int:
    line = next(line for line in path.read_text().splitlines() if line.startswith(name + ":"))
    return int(line.split()[1])


def extra(prepare: Callable[[], Callable[[], object]], warm: Callable[[], object]) -> float:
    """MiB by which the work that `prepare` gives raises this process's memory; what `prepare` makes does not count.

    warm: the same on a small scale, so that libraries and thread pools are there before.
    """
    warm()
    work = prepare()
    before = forget_peak()
    work()
    return max(peak() - before, 0) / 2**20


def answer(measure: Callable[[], float]) -> None:
    """In the fresh process: limit its memory, measure, and print a number or the reason why there is none."""
    global guarded
    limit = int(SHARE * available())
    if _STATUS.exists():
        guarded = True
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        Path("/proc/self/oom_score_adj").write_text("1000")  # if memory runs out after all, let it be this process
    try:
        print(json.dumps(measure()))
    except ImportError as error:
        print(json.dumps(f"not installed ({error.name})"))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        print(json.dumps(f"does not fit in the {limit / 2**30:.0f} GiB that were free"))


def ask(module: str, arguments: Sequence[object], timeout: float = 900) -> float | str:
    """What `module`, run with these arguments in a fresh process, answers."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    # What a process has freed must not serve it again unseen: glibc is told to hand it back at once.
    tell = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=os.environ | tell)
    except subprocess.TimeoutExpired:
        return f"not done after {timeout:.0f} s"
    if done.returncode < 0:
        return f"killed by signal {-done.returncode}"
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The b of the least-squares fit values = a sizes^b."""
    x, y = [math.log(s) for s in sizes], [math.log(v) for v in values]
    mx, my = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / sum((a - mx) ** 2 for a in x)
