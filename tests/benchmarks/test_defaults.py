from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.defaults import __main__ as command
from benchmarks.defaults import candidates, choice, measure, plan, sets

from nearfar.files import replace_text


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of results, in which all costs are known."""
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    for cached in (choice.runs, choice.about, choice.measured, measure.cost, sets.load):
        cached.cache_clear()
    seconds = {f"{method}, 3 x 32 px": 0.5 for method in candidates.CANDIDATES}
    replace_text(tmp_path / "costs.json", json.dumps({"seconds": seconds}))
    return tmp_path


def tiny() -> sets.Set:
    """Sixty-four images of two shades, and 32 to test by."""
    draw = np.random.default_rng(0)
    label = np.arange(96) % 2
    pixels = (draw.integers(0, 200, (96, 32, 32, 3)) + 55 * label[:, None, None, None]).astype(np.uint8)
    rows = np.arange(96)
    return sets._set(pixels, label, ["dark", "light"], rows < 64, rows >= 64)


@pytest.fixture
def one_set(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sets, "SETS", {"tiny": sets.Source("scikit-learn", "photo", tiny, "two shades")})


def test_a_run_is_measured_once_and_the_same_again(one_set: None, results: Path) -> None:
    command.run("tiny", "simclr", "colorful", 1, 0)  # 120 samples of half a second: 2 steps of 64
    file = measure.path("tiny", "simclr", "colorful", 1, 0)
    first = json.loads(file.read_text())
    assert (first["steps"], first["epochs"], first["batch"]) == (2, 2, 64)
    hits = measure.hits(first["knn"], 32)
    assert 100 * float(hits.double().mean()) == pytest.approx(first["knn"]["accuracy"], abs=0.01)
    written = file.stat().st_mtime_ns
    command.run("tiny", "simclr", "colorful", 1, 0)
    assert file.stat().st_mtime_ns == written
    file.unlink()
    command.run("tiny", "simclr", "colorful", 1, 0)
    again = json.loads(file.read_text())
    assert again["knn"] == first["knn"]
    assert again["linear"] == first["linear"]
    untrained = json.loads(measure.baseline_path("tiny", "untrained", 0).read_text())
    assert choice.point("tiny", "simclr", "colorful", 1, "knn") == pytest.approx(
        first["knn"]["accuracy"] - untrained["knn"]["accuracy"]
    )


def test_a_run_that_is_stopped_leaves_no_result(one_set: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "fit", lambda *given: False)
    with pytest.raises(KeyboardInterrupt):
        command.run("tiny", "simclr", "colorful", 1, 0)
    assert not measure.path("tiny", "simclr", "colorful", 1, 0).exists()


def kept(name: str, source: str, nature: str, gains: dict[str, float]) -> None:
    """Write results of 100 test samples: 50 hits untrained, and so many more by configurations."""
    folder = measure.RESULTS / name
    known = {"nature": nature, "source": source, "test": 100, "group": list(range(100))}
    replace_text_in(folder / "about.json", known)
    replace_text_in(folder / "untrained-seed0.json", {"knn": told(50), "linear": told(50)})
    for config, gain in gains.items():
        result = {"seed": 0, "knn": told(50 + gain), "linear": told(50 + gain)}
        replace_text_in(measure.path(name, "simclr", config, 0.5, 0), result)


def told(count: float) -> dict[str, Any]:
    return measure._told(torch.arange(100) < count)


def replace_text_in(file: Path, content: Any) -> None:
    file.parent.mkdir(exist_ok=True)
    replace_text(file, json.dumps(content))


def test_what_is_chosen_does_not_depend_on_the_set_that_is_left_out(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {name: sets.Source(name, "drawing", tiny, "") for name in ("one", "two", "three", "far")}
    monkeypatch.setattr(sets, "SETS", known)
    kept("one", "a", "drawing", {"colorful": 8, "drawing": 2})
    kept("two", "a", "drawing", {"colorful": 8, "drawing": 2})
    kept("three", "b", "drawing", {"colorful": 1, "drawing": 3})
    kept("far", "c", "sign", {"colorful": 0.5, "drawing": -40})
    assert choice.left_out("one", "simclr") == "drawing"  # "two" is of its source
    assert choice.left_out("three", "simclr") == "colorful"
    assert choice.left_out("far", "simclr") == "colorful"  # none is of its nature: 4.5 and 2.5 on the drawings
    assert choice.chosen("simclr", "drawing") == "colorful"
    assert choice.chosen("simclr", "sign") == "colorful"
    text = choice.table(["simclr"], [0.5])
    assert "| one | drawing | drawing | 1 | 50.0 | +2.0 [" in text
    assert "| three | drawing | colorful | 1 | 50.0 | +1.0 [" in text


def test_what_was_tried_on_some_sets_alone_is_not_chosen(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sets, "SETS", {n: sets.Source(n, "drawing", tiny, "") for n in ("one", "two", "new")})
    kept("one", "a", "drawing", {"colorful": 2, "drawing": 9})
    kept("two", "b", "drawing", {"colorful": 2})
    kept("new", "c", "drawing", {})  # nothing was tried there yet
    assert choice.left_out("two", "simclr") == choice.left_out("new", "simclr") == "colorful"


def test_one_great_gain_does_not_decide(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sets, "SETS", {n: sets.Source(n, "drawing", tiny, "") for n in ("one", "two")})
    kept("one", "a", "drawing", {"colorful": 40, "drawing": 10})
    kept("two", "b", "drawing", {"colorful": -3, "drawing": 2})
    assert choice.chosen("simclr", "drawing") == "drawing"


def test_the_plan_wants_every_candidate_and_then_seeds(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sets, "SETS", {n: sets.Source(n, "drawing", tiny, "") for n in ("one", "two")})
    kept("one", "a", "drawing", {"colorful": 4})
    kept("two", "b", "drawing", {"colorful": 4})
    wanted = list(dict.fromkeys(plan.jobs(["simclr"], ["one", "two"], [1])))
    screened, longer = 2 * len(candidates.CANDIDATES["simclr"]), 2 * 2 * 3
    assert len(wanted) == screened + longer  # three seeds of the chosen and the old one
    assert sum(job.done for job in wanted) == 2
    assert plan.told(wanted).startswith(f"{screened + longer - 2} of {screened + longer} runs")


def test_the_tables_on_the_page_are_those_of_the_results() -> None:
    for cached in (choice.runs, choice.about, choice.measured):
        cached.cache_clear()
    text = choice.DOCS.read_text(encoding="utf-8")
    start, end = (text.index(mark) for mark in choice.MARKS)
    held = text[start:end].splitlines()
    for method in candidates.CANDIDATES:
        for line in choice.table([method]).splitlines():
            if line.startswith("|"):
                # An interval may be rounded otherwise elsewhere: its mean and all names must be there.
                shown = re.sub(r"\[[^]]*\]", "", line)
                assert shown in [re.sub(r"\[[^]]*\]", "", other) for other in held], f"{method}: {line}"
