from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from nearfar.cli import main
from nearfar.studies import comparison
from nearfar.studies.comparison import judged, sentences
from tests.tiny import folder


def runs(*knn: float) -> list[dict[str, Any]]:
    shared = {"linear (%)": 50.0, "kNN (%) untrained": 30.0, "linear (%) untrained": 40.0}
    return [{"kNN (%)": value, "minutes": 1.0, "samples seen": 100} | shared for value in knn]


def test_a_difference_inside_the_interval_is_not_one() -> None:
    made = judged({"a": runs(50, 52, 51), "b": runs(52, 50, 51), "c": runs(40, 42, 41), "d": runs(29, 31, 30)})
    assert made["order"][2:] == ["c", "d"]
    assert "no difference from" in made["verdicts"][made["order"][1]]
    assert made["verdicts"]["c"].startswith("behind a by 10.0 points, 95 % interval 10.0 to 10.0")
    assert made["gain"]["a"]["low"] > 0 > made["gain"]["d"]["low"]
    assert made["means"]["a"]["kNN (%)"]["mean"] == 51


def test_a_method_that_learned_nothing_is_said_to() -> None:
    a, b = sentences(judged({"a": runs(50, 52, 51), "b": runs(29, 31, 30)}))
    assert a == "a: best"
    assert b.endswith("; no gain in kNN over the untrained network seen (+0.0 [-2.5, +2.5] points)")


def test_seeds_are_paired() -> None:
    """Seeds differ by much, and a is always 1 ahead: seen only where each seed is held against itself."""
    made = judged({"a": runs(31, 51, 71), "b": runs(30, 50, 70)})
    assert made["verdicts"]["b"].startswith("behind a by 1.0 points")


FLAGS = ["--epochs", "1", "--seeds", "2", "--batch", "16", "--size", "16", "--labels", "folders"]


def test_the_whole_command_resumes_and_measures_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = folder(tmp_path / "p", 40, nested=True), tmp_path / "out"
    call = ["compare", "simclr,supcon", str(data), *FLAGS, "--out", str(out)]
    train, calls = comparison.training.train, []

    def cut_short(plan: Any, path: Path, **options: Any) -> bool:
        calls.append(path.name)
        return len(calls) < 3 and train(plan, path, **options)

    monkeypatch.setattr(comparison.training, "train", cut_short)
    assert main(call) == 130
    assert "Go on with: nearfar compare simclr,supcon" in capsys.readouterr().out
    monkeypatch.setattr(comparison.training, "train", train)
    before = (out / "simclr-seed0" / "results" / "evaluate.json").stat().st_mtime_ns
    assert main(call) == 0
    assert (out / "simclr-seed0" / "results" / "evaluate.json").stat().st_mtime_ns == before
    with open(out / "compare.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} == {"simclr", "supcon"}
    assert rows[0]["verdict"] == "best"
    assert {row["samples seen"] for row in rows} == {"32"}
    assert json.loads((out / "compare.json").read_text())["epochs"] == {"simclr": 1, "supcon": 1}
    page = (out / "compare.html").read_text(encoding="utf-8")
    assert all(f">{part}<" in page for part in ("What can be told", "untrained", "simclr", "supcon", "kNN (%)"))
    assert main([*call[:-2], "--batch", "8", "--out", str(out)]) == 2
    assert "holds another comparison" in capsys.readouterr().err


def test_minutes_become_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = comparison.Ask(methods=("a", "b"), data="x", labels="y", minutes=2.0)
    monkeypatch.setattr(comparison, "_train", lambda *_: True)
    monkeypatch.setattr(comparison, "_environment", lambda path: {"seconds": 50.0 if "a-" in path.name else 500.0})
    assert [comparison._epochs(ask, method, tmp_path, lambda text: None) for method in ask.methods] == [2, 1]


@pytest.mark.parametrize(("methods", "seeds"), [("simclr", "3"), ("simclr,simclr", "3"), ("simclr,moco", "1")])
def test_one_of_a_kind_is_no_comparison(
    methods: str, seeds: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["compare", methods, str(tmp_path), "--labels", "folders", "--seeds", seeds, "--out", str(tmp_path / "o")]
    assert main(call) == 2
    assert "two of each are needed" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
