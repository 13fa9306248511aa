from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import t

from nearfar.cli import main
from nearfar.evaluation.intervals import Interval, judged
from nearfar.evaluation.protocol import packed
from nearfar.studies import comparison
from nearfar.studies.asked import Compare
from nearfar.studies.comparison import Comparison, judgement, sentences, summarize, verdict
from tests.tiny import folder


def runs(*knn: float) -> list[dict[str, Any]]:
    shared = {"linear (%)": 50.0, "kNN (%) untrained": 30.0, "linear (%) untrained": 40.0}
    return [{"kNN (%)": value, "minutes": 1.0, "samples seen": 100} | shared for value in knn]


def test_a_difference_inside_the_interval_is_not_one() -> None:
    summary = summarize({"a": runs(50, 52, 51), "b": runs(52, 50, 51), "c": runs(40, 42, 41), "d": runs(29, 31, 30)})
    assert summary["order"][2:] == ["c", "d"]
    second = summary["order"][1]
    assert [judgement(summary, method) for method in summary["order"]] == ["best", "open", "ahead", "ahead"]
    assert summary["behind"]["c"]["mean"] == pytest.approx(10)
    half = t.ppf(0.975, 4) * (2 / 4 / 3) ** 0.5  # three equal gaps, and the usual spread of 1 with 2 degrees of freedom
    assert summary["behind"]["c"]["low"] == pytest.approx(10 - half)
    assert [judged(Interval(**summary["gains"][m])) for m in (second, "c", "d")] == ["ahead", "ahead", "alike"]
    assert summary["means"]["a"]["kNN (%)"]["mean"] == 51
    assert len(set(sentences(summary))) == 4
    assert verdict(summary, "a") == "best" or verdict(summary, second) != "best"


def test_seeds_are_paired() -> None:
    """Seeds differ by much, and a is always 5 ahead: seen only where each seed is held against itself."""
    summary = summarize({"a": runs(35, 55, 75), "b": runs(30, 50, 70)})
    assert summary["behind"]["b"]["mean"] == pytest.approx(5)
    assert judgement(summary, "b") == "ahead"
    assert summary["means"]["a"]["kNN (%)"]["low"] < summary["means"]["b"]["kNN (%)"]["mean"]


@pytest.mark.parametrize(("gains", "found"), [((24.0, 24.0), "ahead"), ((20.0, 28.0), "ahead"), ((-6.0, 54.0), "open")])
def test_a_gain_of_24_points_over_two_seeds(gains: tuple[float, float], found: str) -> None:
    summary = summarize({"a": runs(*(30 + gain for gain in gains)), "b": runs(30, 30)})
    assert judged(Interval(**summary["gains"]["a"])) == found
    assert judgement(summary, "b") == found
    assert 0 <= summary["means"]["a"]["kNN (%)"]["low"] <= summary["means"]["a"]["kNN (%)"]["high"] <= 100


def test_the_answers_to_the_test_samples_are_used() -> None:
    def answered(knn: float) -> dict[str, Any]:
        right = {
            name: packed(torch.arange(200) < 2 * value) for name, value in (("kNN (%)", knn), ("kNN (%) untrained", 30))
        }
        return runs(knn)[0] | {"right": right}

    many = summarize({"a": [answered(36), answered(36)], "b": [answered(30), answered(30)]})
    assert many["behind"]["b"]["mean"] == pytest.approx(6)
    assert judgement(many, "b") == "ahead"
    width = [many["means"]["a"]["kNN (%)"][end] for end in ("high", "low")]
    assert width[0] - width[1] > 2 * 1.96 * (0.36 * 0.64 / 200) ** 0.5 * 100  # of 200 samples, not of two equal numbers
    whole = summarize(
        {"a": [answered(36), answered(36)], "b": [answered(30), answered(30)]}, [i // 50 for i in range(200)]
    )
    assert judgement(whole, "b") == "open"  # four units


def test_tables_are_compared_on_their_own_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "table.csv"
    rows = [
        f"{'train' if i % 4 else 'test'},{i % 7},{(i * i) % 11},{'ab'[i % 2]},{'xy'[i % 3 == 0]}" for i in range(60)
    ]
    table.write_text("\n".join(["split,u,v,w,label", *rows]))
    call = ["compare", "simclr,imix", str(table), "--epochs", "1", "--seeds", "2", "--batch", "16"]
    assert main([*call, "--out", str(tmp_path / "out")]) == 0
    with (tmp_path / "out" / "compare.csv").open() as file:
        assert sorted(line["method"] for line in csv.DictReader(file)) == ["imix", "simclr"]
    for method in ("simclr", "imix"):
        config = (tmp_path / "out" / f"{method}-seed1" / "config.yaml").read_text()
        assert "encoder: mlp\n" in config
    capsys.readouterr()
    for method, word in (("rotation", "pixels"), ("nothing", "no method 'nothing'")):
        call[1] = f"simclr,{method}"
        assert main([*call, "--out", str(tmp_path / method)]) == 2
        assert word in capsys.readouterr().err
        assert not (tmp_path / method).exists()  # said before anything is trained


def test_the_whole_command_resumes_and_measures_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = folder(tmp_path / "p", 32, nested=True), tmp_path / "out"
    flags = ["--epochs", "1", "--seeds", "2", "--batch", "16", "--size", "16", "--labels", "folders"]
    call = ["compare", "simclr,supcon", str(data), *flags, "--out", str(out)]
    train, calls = comparison.training.train, []

    def cut_short(plan: Any, path: Path, **options: Any) -> bool:
        calls.append(path.name)
        return len(calls) < 3 and train(plan, path, **options)

    monkeypatch.setattr(comparison.training, "train", cut_short)
    assert main(call) == 130
    assert "Go on with: nearfar compare simclr,supcon" in capsys.readouterr().out
    saved = json.loads((out / "compare.json").read_text())["measured"]
    assert {method: len(scores) for method, scores in saved["runs"].items()} == {"simclr": 1, "supcon": 1}

    def whole(plan: Any, path: Path, **options: Any) -> bool:
        calls.append(path.name)
        return train(plan, path, **options)

    monkeypatch.setattr(comparison.training, "train", whole)
    assert main(call) == 0
    names = ["simclr-seed0", "supcon-seed0", "simclr-seed1"]
    assert calls == [*names, "simclr-seed1", "supcon-seed1"]  # the one that was cut short is done again
    after = json.loads((out / "compare.json").read_text())
    assert after["measured"]["epochs"] == {"simclr": 1, "supcon": 1}
    assert [after["measured"]["runs"][method][0] for method in ("simclr", "supcon")] == [
        saved["runs"][method][0] for method in ("simclr", "supcon")
    ]
    with open(out / "compare.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == after["summary"]["order"]
    assert rows[0]["verdict"] == "best"
    assert {row["samples seen"] for row in rows} == {"32"}
    page = (out / "compare.html").read_text(encoding="utf-8")
    assert all(f">{part}<" in page for part in ("untrained", "simclr", "supcon", "kNN (%)"))
    assert main([*call[:-2], "--batch", "8", "--out", str(out)]) == 2
    assert "--batch was 16 and is 8" in capsys.readouterr().err


def test_minutes_become_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Comparison(Compare(methods=("a", "b"), data="x", minutes=2.0), tmp_path, say=lambda text: None)
    monkeypatch.setattr(Comparison, "_train", lambda *_: True)
    monkeypatch.setattr(comparison, "_seconds", lambda path: 50.0 if "a-" in path.name else 500.0)
    assert [study._epochs(method) for method in study.ask.methods] == [2, 1]


@pytest.mark.parametrize(("methods", "seeds"), [(("simclr", "simclr"), 3), (("simclr", "moco"), 1)])
def test_one_of_a_kind_is_no_comparison(methods: tuple[str, ...], seeds: int) -> None:
    with pytest.raises(ValueError, match=r"two are needed|--seeds 1"):
        Compare(methods=methods, data="x", seeds=seeds)
