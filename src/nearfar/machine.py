"""What this machine has: devices, memory, cores."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from nearfar.errors import UserError


def pick_device(name: str) -> torch.device:
    """The device called `name`; auto is a GPU if there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name}: torch knows no such device; use auto, cpu, cuda, cuda:1 or mps") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {name}: torch finds no GPU here; use --device cpu or auto")
    return device


def session() -> dict[str, str]:
    """What is running: versions, the command line, and the time, as a directory of results keeps them."""
    return {
        "nearfar": version("nearfar"),
        "torch": torch.__version__,
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory(device: torch.device | str = "cpu") -> float:
    """Bytes of the device's memory that this process may still take. Beside a GPU: what the system and its container
    leave, shared between the processes that were started together on this machine."""
    device = torch.device(device)
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    free = (
        [4 * 2**30] if not hasattr(os, "sysconf") else [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2]
    )
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")] or free
    group = Path("/sys/fs/cgroup")
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # no such group, or "max": no limit
            free.append(int((group / limit).read_text()) - int((group / used).read_text()))
    return max(0, min(free)) / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@cache
def opencv() -> Any:
    """OpenCV where it is installed (the extra "fast"), else None: everything works without it, some of it slower."""
    try:
        import cv2  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    return cv2
