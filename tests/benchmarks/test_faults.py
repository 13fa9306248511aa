"""A few faults of each kind; `python -m benchmarks.faults` injects them by the hundred."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from benchmarks.faults import Faults
from benchmarks.faults.__main__ import kinds

SLOW = {
    *("two_on_one_directory", "killed_writers", "ranks_that_differ", "ranks_that_die_or_stall", "stopped_classifiers"),
    *("lowered_ulimit", "damaged_exports", "runs_whose_files_change"),
}
"""Kinds of which a single fault takes many seconds, or processes of their own."""

ONCE = {"code_that_a_run_names", "flipped_bits_of_side_files", "cut_and_foreign_side_files"}
"""Kinds of which one fault is enough here, as each takes seconds."""


def test_kinds_are_named_rightly() -> None:
    assert kinds().keys() > SLOW


@pytest.mark.parametrize("kind", sorted(kinds().keys() - SLOW))
def test_no_fault_ends_wrong(kind: str, tmp_path: Path) -> None:
    faults = Faults()
    kinds()[kind](faults, tmp_path, random.Random(0), 1 if kind in ONCE else 2)
    assert faults.injected > 0
    assert faults.wrong == []
    assert faults.survived == faults.injected
