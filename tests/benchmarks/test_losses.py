from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest
from benchmarks.bench import memory
from benchmarks.bench.losses import CASES, COMPILED, FLOOR, LIGHTLY, PML, PML_MATRIX, SUMMED
from benchmarks.bench.timing import OURS

PEERS = [
    *([] if importlib.util.find_spec("lightly") else [LIGHTLY]),
    *([] if importlib.util.find_spec("pytorch_metric_learning") else [PML, PML_MATRIX]),
]


@pytest.mark.parametrize(
    ("name", "size"),
    [("NT-Xent", (6, 8)), ("SupCon", (40, 8)), ("DCL", (6, 8)), ("MoCo", (6, 8, 20)), ("Barlow Twins", (6, 8))],
)
def test_all_contenders_compute_the_same(name: str, size: tuple[int, ...]) -> None:
    contenders = CASES[name](*size)
    ours = contenders[OURS]()()
    for who, make in contenders.items():
        if who not in (*PEERS, OURS, COMPILED, FLOOR, SUMMED):
            assert make()() == pytest.approx(ours, rel=1e-4)
    if FLOOR in contenders:
        contenders[FLOOR]()()


def test_a_missing_library_is_an_import_error() -> None:
    for who in PEERS:
        with pytest.raises(ImportError):
            CASES["NT-Xent"](4, 8)[who]()


def test_what_is_too_large_is_not_tried() -> None:
    with pytest.raises(MemoryError, match="needs about"):
        CASES["NT-Xent"](1_000_000, 1)["plain"]()


EXTRA = """
import torch
from benchmarks.bench import memory

def prepare():
    made = torch.zeros(2**24) + 1
    return lambda: made + 1

memory.answer(lambda: memory.extra(prepare, lambda: torch.zeros(10)))
"""


def test_extra_memory_counts_the_work_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # In a process of its own, as the bench does it: here the work may get memory that other tests have freed.
    (tmp_path / "extra.py").write_text(EXTRA)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    mib = memory.ask("extra", ())
    assert isinstance(mib, float)
    assert 48 < mib < 100  # the result, 64 MiB; what was made before does not count


def test_exponent() -> None:
    assert memory.exponent([1, 2, 4, 8], [3, 12, 48, 192]) == pytest.approx(2)
