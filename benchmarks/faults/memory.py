"""Memory that is short: limits of every form, and trainings that run into one."""

from __future__ import annotations

import os
import random as randomness
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np

from benchmarks.faults import Faults
from nearfar.machine import host_memory

MIB = 2**20
TRAINING = """
import resource, sys
import timm, nearfar.cli.train, nearfar.training.job, nearfar.errors, nearfar.machine
words, more = sys.argv[2:], int(sys.argv[1])
used = nearfar.machine._sizes(nearfar.machine.Path("/proc/self/status"))["VmSize"]
resource.setrlimit(resource.RLIMIT_AS, (used + more, resource.RLIM_INFINITY))
try:
    status = nearfar.cli.main(words)
except Exception as error:
    status, sentence = 2, nearfar.errors.out_of_memory(error)
    if sentence is None:
        raise
    print(sentence, file=sys.stderr)
finally:
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
sys.exit(status)
"""


def memory_limits(faults: Faults, folder: Path, random: randomness.Random, many: int) -> None:
    """Control groups with limits, nested and of both versions, and ulimits: the least is kept to"""
    for number in range(many):
        root = folder / str(number)
        free = [random.randrange(1, 64000)]  # MiB
        files: dict[str, object] = {"proc/meminfo": f"MemAvailable: {1024 * free[0]} kB"}
        version, names = random.choice(["", "unified", "memory"]), random.choices("abc", k=random.randrange(4))
        limit, used = "memory.max", "memory.current"
        if version == "memory":
            limit, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
        files["proc/self/cgroup"] = f"{'9:cpu,memory' if version == 'memory' else '0:'}:/{'/'.join(names)}"
        for depth in range(len(names) + 1):
            group = "/".join(["sys/fs/cgroup", *([version] if version else []), *names[:depth]])
            most, held = random.randrange(64000), random.randrange(8000)
            endless = random.random() < 0.4
            files[f"{group}/{limit}"] = ("max" if limit == "memory.max" else 2**63 - 4096) if endless else most * MIB
            files[f"{group}/{used}"] = held * MIB
            free += [] if endless else [most - held]
        ranks = random.choice([1, 1, 2, 8])
        left = min(free) / ranks
        ulimit = random.choice([-1, random.randrange(64000)])
        files["proc/self/status"] = f"Name:\tpython\nVmSize:\t{1024 * 2000} kB"
        left = max(0, left if ulimit < 0 else min(left, ulimit - 2000))
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(f"{text}\n")
        space = [(ulimit * MIB if ulimit >= 0 else -1, -1), (-1, -1)]  # of RLIMIT_AS, then RLIMIT_DATA
        with patch("resource.getrlimit", side_effect=space), patch.dict(os.environ, LOCAL_WORLD_SIZE=str(ranks)):
            got = host_memory(root) / MIB
        faults.tell(abs(got - left) < 1e-6, f"{files}: {got} MiB free, and {left} were")


def lowered_ulimit(faults: Faults, folder: Path, random: randomness.Random, many: int) -> None:
    """Trainings with too little address space: they end well, or name what to lower

    The limit is set when all libraries are loaded, and lifted before the process ends: what they do without memory at
    those moments is not ours.
    """
    np.savez(folder / "images.npz", images=np.zeros((400, 32, 32, 3), np.uint8))
    for number in range(max(1, min(many // 10, 10))):
        more = random.randrange(1, 400) * MIB
        words = ["train", "simclr", folder / "images.npz", "--out", folder / str(number), "--epochs", 1]
        words += ["--encoder", random.choice(["conv4", "resnet18"]), "--batch", 256, "--views", "drawing"]
        ended = subprocess.run(
            [sys.executable, "-c", TRAINING, str(more), *map(str, words)],
            capture_output=True,
            text=True,
            timeout=300,
            env=os.environ | {"OMP_NUM_THREADS": "1", "NEARFAR_TRACEBACK": "1"},
        )
        told = ended.returncode == 2 and "--batch" in ended.stderr and "Traceback" not in ended.stderr
        whole = ended.returncode == 0 and (folder / str(number) / "encoder.safetensors").exists()
        faults.tell(told or whole, f"{more // MIB} MiB more: status {ended.returncode}, {ended.stderr[-300:]!r}")
