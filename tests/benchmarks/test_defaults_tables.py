from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.defaults import tables


def result(after: float) -> dict[str, Any]:
    told = {what: {"accuracy": after} for what in ("knn", "linear")}
    return {"before": told, "after": told, "seed": 0, "tested": 8}


def test_a_table_does_not_choose_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One table alone would turn the choice; where it is left out, the others decide."""
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    tables.runs.cache_clear()
    for name, paper, kept in (("a", 70, 71), ("b", 70, 72), ("c", 90, 60)):
        for config, value in (("paper", paper), ("kept", kept)):
            file = tables.result_path(name, "simclr", config, 5, 0)
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps(result(value)))
    assert tables.choose("simclr", 5, ("a", "b")) == "kept"
    assert tables.choose("simclr", 5, ("a", "b", "c")) == "paper"
    assert tables.choose("simclr", 5, ("a", "d")) is None
    tables.runs.cache_clear()


def test_a_run_is_measured_before_and_after() -> None:
    random = np.random.default_rng(0)
    label = np.arange(90) % 3
    columns = {f"x{i}": (label == i % 3) + random.normal(scale=0.2, size=90) for i in range(4)}
    split = np.where(np.arange(90) < 60, "train", "test").tolist()
    given = tables.TableSet("easy", columns, [str(y) for y in label], split)
    found = tables.trained(given, "simclr", "kept", 8, 0)
    assert (found["rows"], found["tested"], found["epochs"]) == (60, 30, 8)
    assert found["settings"]["numbers"] == "piecewise"
    assert min(found[when]["knn"]["accuracy"] for when in ("before", "after")) > 80
    beside = tables.baselines(given)
    assert beside["standard"]["knn"]["accuracy"] > 80
    assert len(beside["trees, ten a class"]) == 3
