from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import suspects
from nearfar.batch import MISSING


def test_as_many_labels_are_turned_as_are_said_each_to_another_class() -> None:
    label = torch.arange(200) % 7
    label[:20] = MISSING
    given, rows = suspects.turned(label, 0.05, 0)
    assert len(rows) == 9
    assert torch.equal((given != label).nonzero()[:, 0], rows.sort().values)
    assert bool((given[20:] >= 0).all())
    assert bool((given < 7).all())


def test_the_table_is_made_of_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspects, "RESULTS", tmp_path)
    for seed, precision in enumerate((90.0, None)):
        found = {"samples": 1458, "classes": 43, "turned": 73, "precision": precision, "recall": 50.0 + seed}
        found |= {"proposed_right": None, "suspects_on_clean": 4}
        suspects.path("photos", seed).write_text(json.dumps(found))
    lines = suspects.table(("drawings", "photos"), 3).splitlines()
    assert lines[2].startswith("| drawings | not measured |")
    assert lines[3] == (
        "| photos (2 of 3 runs) | 1,458 | 43 | 73 | 90.0 (90 to 90) | 50.5 (50 to 51) | n/a | 4.0 (4 to 4) |"
    )
