from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import fewlabels


def test_the_table_takes_differences_seed_by_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fewlabels, "RESULTS", tmp_path)
    for arm, budget in fewlabels.arms():
        for seed in range(3):
            first = {"scratch": 20, "frozen": 30, "middle": 35, "full": 40, "distilled": 39 + seed}[arm]
            value = first + budget + 5 * seed
            fewlabels.path("drawings", arm, budget, seed).write_text(json.dumps({"accuracy": value, "cpu_seconds": 7}))
    rows = {line.split(" | ")[0].strip("| "): line for line in fewlabels.table("drawings", 3).splitlines()}
    assert "| 26.0 [13.6, 38.4] |" in rows["from scratch"]  # 21, 26, 31: mean, and t-interval of two degrees
    assert rows["fine-tuned over from scratch"].count("+20.0 [+20.0, +20.0]") == 4
    assert rows["fine-tuned, distilled over fine-tuned"].count("no difference seen") == 4
    fewlabels.path("drawings", "full", 2, 1).unlink()
    fewlabels.path("drawings", "full", 2, 2).unlink()
    assert "| 1 runs |" in fewlabels.table("drawings", 3)


def test_drawings_by_other_hands_are_tested(shared_data: Path) -> None:
    task = fewlabels.drawings()
    assert (len(task.unlabeled), len(task.labeled), len(task.labeled.classes)) == (13_780, 1_200, 60)
    hands = {part: set() for part in ("train", "test")}
    for name, part in zip(task.labeled.names, task.labeled.split, strict=True):
        hands[part].add(int(name.split("/")[1]))
    assert hands == {"train": set(range(10)), "test": set(range(10, 20))}
