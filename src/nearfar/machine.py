"""What this machine has: devices, memory, cores."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import time
import warnings
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from nearfar.errors import UserError

DEVICES = "auto, cpu, cuda or cuda:1"


def pick_device(name: str) -> torch.device:
    """The device called `name`; auto is a GPU on which this torch computes, and the CPU where there is none.

    Raises ValueError for a device on which training cannot work. Apple's GPUs (mps) are such: they lack the double
    precision in which sums are taken.
    """
    if name == "auto":
        trouble = _trouble(0) if torch.cuda.is_available() else ""
        if trouble:
            warnings.warn(f"the GPU is not used, as torch cannot compute on it: {trouble}", stacklevel=2)
        return torch.device("cuda" if torch.cuda.is_available() and not trouble else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name!r}: torch knows no such device; use {DEVICES}") from error
    if device.type not in ("cpu", "cuda"):
        why = "has no double precision, in which sums are taken" if device.type == "mps" else "is not provided for"
        raise UserError(f"--device {name}: training cannot work there, as it {why}; use {DEVICES}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {name}: torch finds no GPU here; use --device cpu or auto")
    if device.type == "cuda" and (trouble := _trouble(device.index or 0)):
        count = torch.cuda.device_count()
        raise UserError(f"--device {name}: torch cannot compute there ({trouble}); it finds {count} GPU(s)")
    return device


def own_device(name: str) -> torch.device:
    """The device called `name` as `pick_device` has it; of a process that torchrun started, on a GPU its own one."""
    device = pick_device(name)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", device.index or 0)))
        torch.cuda.set_device(device)
    return device


def _trouble(index: int) -> str:
    """Why nothing can be computed on a GPU, such as one that this torch has no programs for; "" where it can."""
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", index)))  # the one that this process will use
    try:
        (torch.ones(1, device=device) + 1).item()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return ""


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
    """Bytes of the device's memory that this process may still take; beside a GPU, of the system's: `host_memory`."""
    device = torch.device(device)
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    return host_memory()


def host_memory(root: Path = Path("/")) -> float:
    """Bytes of the system's memory that this process may still take.

    The least of what the system has; of what its control group and all groups above it leave (cgroup v1 and v2), both
    in equal parts for the processes that were started together on this machine; and of what `ulimit -v` and `ulimit -d`
    leave.  root: where proc and sys are.
    """
    available = _sizes(root / "proc" / "meminfo").get("MemAvailable")
    if available is None:
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 8 * 2**30
        available = pages // 2
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    shared = min([available, *_left_by_groups(root)]) / ranks
    return max(0, min([shared, *_left_by_ulimit(root)]))


def _sizes(path: Path) -> dict[str, int]:
    """Bytes by name, of a file with lines such as "MemAvailable:  16 kB"; empty where there is none."""
    parts = [line.split() for line in _text(path).splitlines()]
    return {p[0].rstrip(":"): 1024 * int(p[1]) for p in parts if len(p) == 3 and p[1].isdigit() and p[2] == "kB"}


def _left_by_groups(root: Path) -> Iterator[int]:
    """What each control group of this process, and each group above it, has left of its limit.

    File pages that were not used of late are given back when they are needed, so they do not count as used.
    """
    # Also the top of each tree: in a container that is its own group, whatever its path is called outside.
    groups = {("memory", "/"), ("", "/"), ("unified", "/")}
    for line in _text(root / "proc" / "self" / "cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if ".." not in path.split("/"):
            groups |= {("memory", path)} if "memory" in controllers.split(",") else set()
            groups |= {("", path), ("unified", path)} if not controllers else set()
    folders = {
        root / "sys" / "fs" / "cgroup" / tree / str(part).lstrip("/")
        for tree, path in groups
        for part in (PurePosixPath(path), *PurePosixPath(path).parents)
    }
    for folder in folders:
        stat = dict(line.split(" ", 1) for line in _text(folder / "memory.stat").splitlines() if " " in line)
        for limit, used, given_back in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.high", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            with contextlib.suppress(ValueError):  # no such group, or "max": no limit
                held = int(_text(folder / used)) - int(stat.get(given_back, 0))
                yield int(_text(folder / limit)) - max(0, held)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _left_by_ulimit(root: Path) -> Iterator[int]:
    """What limits of this process alone leave of its address space (`ulimit -v`) and of its data (`ulimit -d`)."""
    try:
        import resource
    except ImportError:  # on Windows, which has no such limits
        return
    used = _sizes(root / "proc" / "self" / "status")
    for limit, name in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        most, _ = resource.getrlimit(limit)
        if most != resource.RLIM_INFINITY and name in used:
            yield most - used[name]


@contextlib.contextmanager
def memory_kept() -> Iterator[None]:
    """Within, the memory of tensors that are gone is kept for those to come, on Linux: steps take 5 to 20 % less time.

    By itself glibc gives large blocks back at once, and gets each page of the next ones anew from the system, zeroed,
    one page fault at a time. Numbers stay as they are; the peak of memory grows by some 5 %. Afterward what is not in
    use is given back, and blocks of 32 MiB or more go back at once: glibc comes to that by itself, by and by, where
    such blocks are made and freed. Variables of the environment that set the same go first.
    """
    library = None if _ALLOCATOR & os.environ.keys() else _glibc()
    if library is None:
        yield
        return
    trim_threshold, mmap_threshold, mib = -1, -3, 2**20  # malloc.h names -1 and -3 so
    library.mallopt(trim_threshold, -1)  # never
    library.mallopt(mmap_threshold, 32 * mib)
    library.mallopt(mmap_threshold, 1024 * mib)  # more than 32 MiB is refused before glibc 2.35
    try:
        yield
    finally:
        library.mallopt(trim_threshold, 64 * mib)
        library.mallopt(mmap_threshold, 32 * mib)
        library.malloc_trim(ctypes.c_size_t(0))


_ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"}


def _glibc() -> Any:
    """The C library of this process where it is glibc, else None."""
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):  # on Windows, whose libraries have names
        return None
    return library if hasattr(library, "gnu_get_libc_version") else None


@cache
def opencv() -> Any:
    """OpenCV where it is installed (the extra "fast"), else None: everything works without it, some of it slower."""
    try:
        import cv2  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    return cv2
