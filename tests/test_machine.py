from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from nearfar import machine
from nearfar.machine import host_memory, memory_kept, pick_device

MIB = 2**20


def tree(root: Path, files: Mapping[str, object]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr("resource.getrlimit", lambda which: (-1, -1))


MEMINFO = {"proc/meminfo": "MemTotal: 9000000 kB\nMemAvailable:   8192000 kB\nHugePages_Total: 0"}
V2, V1 = "sys/fs/cgroup", "sys/fs/cgroup/memory"


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 8000),
        ({f"{V2}/memory.max": 1000 * MIB, f"{V2}/memory.current": 300 * MIB}, 700),  # in a container
        ({"proc/self/cgroup": "0::/a/b/c", f"{V2}/a/memory.max": 900 * MIB, f"{V2}/a/memory.current": 100 * MIB,
          f"{V2}/a/b/memory.max": "max", f"{V2}/a/b/memory.current": 90 * MIB,
          f"{V2}/a/b/c/memory.max": 2000 * MIB, f"{V2}/a/b/c/memory.current": 10 * MIB}, 800),
        ({"proc/self/cgroup": "0::/a/b", f"{V2}/a/memory.max": 900 * MIB, f"{V2}/a/memory.current": 100 * MIB,
          f"{V2}/a/b/memory.max": 600 * MIB, f"{V2}/a/b/memory.current": 550 * MIB,
          f"{V2}/a/b/memory.stat": f"anon {150 * MIB}\ninactive_file {400 * MIB}"}, 450),
        ({"proc/self/cgroup": "0::/a", f"{V2}/a/memory.high": 500 * MIB, f"{V2}/a/memory.current": 0}, 500),
        ({"proc/self/cgroup": "7:cpu,memory:/a/b\n3:cpuset:/x\n0::/y", f"{V1}/a/memory.limit_in_bytes": 400 * MIB,
          f"{V1}/a/memory.usage_in_bytes": 50 * MIB, f"{V1}/a/b/memory.limit_in_bytes": 2**63 - 4096,
          f"{V1}/a/b/memory.usage_in_bytes": 50 * MIB}, 350),
        ({"proc/self/cgroup": "4:memory:/docker/0123", f"{V1}/memory.limit_in_bytes": 300 * MIB,
          f"{V1}/memory.usage_in_bytes": 50 * MIB}, 250),
        ({"proc/self/cgroup": "0::/a", "sys/fs/cgroup/unified/a/memory.max": 64 * MIB,
          "sys/fs/cgroup/unified/a/memory.current": 100 * MIB}, 0),
        ({"proc/self/cgroup": "0::/../../etc\nnonsense", f"{V2}/memory.max": "x", f"{V2}/memory.current": "y"}, 8000),
    ],
)  # fmt: skip
def test_the_least_of_all_groups_counts(tmp_path: Path, files: dict[str, object], free: int) -> None:
    assert host_memory(tree(tmp_path, MEMINFO | files)) == free * MIB


def test_limits_of_this_process_count_and_are_not_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    root = tree(tmp_path, MEMINFO | {"proc/self/status": "Name:\tx\nVmSize:\t 2048000 kB\nVmData:\t  512000 kB"})
    limits = {resource.RLIMIT_AS: 4000 * MIB, resource.RLIMIT_DATA: resource.RLIM_INFINITY}
    monkeypatch.setattr("resource.getrlimit", lambda which: (limits[which], resource.RLIM_INFINITY))
    assert host_memory(root) == 2000 * MIB
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert host_memory(root) == 2000 * MIB  # of the 8000 MiB a half is 4000
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert host_memory(root) == 1000 * MIB
    limits[resource.RLIMIT_DATA] = 900 * MIB
    assert host_memory(root) == 400 * MIB
    limits[resource.RLIMIT_AS] = 0
    assert host_memory(root) == 0


def test_where_nothing_is_told_half_of_the_memory_is_taken_to_be_free(tmp_path: Path) -> None:
    assert host_memory(tmp_path) == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


@pytest.mark.parametrize("name", ["mps", "meta", "xpu", "cuda:99", "gpu", "cpu0"])
def test_a_device_on_which_training_cannot_work_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"--device '?{name}'?: "):
        pick_device(name)


def test_auto_takes_a_gpu_only_where_torch_computes_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto").type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(machine, "_trouble", lambda index: "")
    assert pick_device("auto").type == "cuda"
    assert pick_device("cuda:1") == torch.device("cuda:1")

    def too_old(*args: object, **options: object) -> None:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore")

    monkeypatch.undo()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", too_old)
    with pytest.warns(UserWarning, match=r"no kernel image is available for execution on the device$"):
        assert pick_device("auto").type == "cpu"
    with pytest.raises(ValueError, match=r"--device cuda: .*no kernel image"):
        pick_device("cuda")


class _Usage(ctypes.Structure):
    """What glibc tells of its memory: mallinfo2 of malloc.h."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    )


def _mapped_by_a_block(mib: int) -> int:
    """MiB that a tensor takes from the system for itself, to be given back when it is gone."""
    usage = ctypes.CDLL(None).mallinfo2
    usage.restype = _Usage
    before = usage().hblkhd
    block = torch.empty(mib * MIB, dtype=torch.uint8)
    return (usage().hblkhd - before) // MIB if len(block) else 0


@pytest.mark.skipif(
    machine._glibc() is None or not hasattr(machine._glibc(), "mallinfo2"), reason="tells of glibc 2.33 and later"
)
def test_memory_is_kept_within_and_given_back_after(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in machine._ALLOCATOR:
        monkeypatch.delenv(variable, raising=False)
    with memory_kept():
        assert _mapped_by_a_block(16) == 0
    assert _mapped_by_a_block(64) == 64
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    with memory_kept():  # what the environment says goes first
        assert _mapped_by_a_block(64) == 64
