from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import walks

HEARD = """Some words on nearfar evaluate RUN DATA.
Run:      runs/supcon-wine-1
Go on:    nearfar evaluate runs/supcon-wine-1 'my wine.csv' --labels 'a b.csv'
          nearfar embed runs/supcon-wine-1 'my wine.csv'
"""


def test_the_docs_show_the_results() -> None:
    assert walks.table() in walks.DOCS.read_text(encoding="utf-8"), "run python -m benchmarks.walks --write"


def test_training_says_how_to_go_on() -> None:
    assert walks.going_on(HEARD) == "nearfar evaluate runs/supcon-wine-1 'my wine.csv' --labels 'a b.csv'"
    assert walks.going_on("Go on:    nearfar embed RUN DATA") == ""


def test_a_walk_gives_each_command_to_a_shell_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []
    run = tmp_path / "runs" / "supcon-wine-1"

    def told(command: str, folder: Path) -> tuple[str, float]:
        given.append(command)
        if command.startswith("nearfar doctor"):
            return "whole run  about 3 min: 40 epochs\n\nnearfar train supcon 'my wine.csv' --epochs 40\n", 2.0
        if command.startswith("nearfar train"):
            (run / "results").mkdir(parents=True)
            (run / "config.yaml").touch()
            return HEARD, 170.0
        cell = {"value": 50.123, "low": 40.0, "high": 60.0, "right": "packed"}
        rows = [{"name": name, "values": {"kNN (%)": cell}} for name in ("raw", "before", "after")]
        (run / "results" / "evaluate-wine.json").write_text(json.dumps({"rows": rows}))
        return "", 5.0

    monkeypatch.setattr(walks, "_run", told)
    found = walks.walk(lambda folder: ["my wine.csv"], tmp_path, 5)
    assert given == found["commands"]
    assert given[0] == "nearfar doctor 'my wine.csv' --minutes 5"
    assert given[1] == "nearfar train supcon 'my wine.csv' --epochs 40"
    assert found["said"] == "about 3 min"
    assert found["seconds"] == [2.0, 170.0, 5.0]
    assert found["results"]["after"] == {"kNN (%)": {"value": 50.12, "low": 40.0, "high": 60.0}}


def test_a_command_that_fails_ends_the_walk(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ended with 3"):
        walks._run("exit 3", tmp_path)
    assert walks._run("echo it\\'s 'a b'", tmp_path)[0] == "it's a b\n"


def test_wine_is_laid_out_with_a_test_part(tmp_path: Path) -> None:
    assert walks.wine(tmp_path) == ["wine.csv", "--label-column", "cultivar"]
    lines = (tmp_path / "wine.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 179
    assert 40 < sum(line.endswith(",test") for line in lines) < 80


@pytest.mark.parametrize("name", sorted({*walks.SETS} - {"wine"}))  # which scikit-learn brings
def test_a_set_that_is_not_there_is_left_out(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module, part in ((walks, "SHARE"), (walks, "DATA"), (walks, "RESULTS"), (walks.tables, "DATA")):
        monkeypatch.setattr(module, part, tmp_path / "nowhere")
    monkeypatch.setattr(walks.tables, "find_spec", lambda name: None)
    assert walks.main(walks.Walks((name,))) == 0
    assert f"{name} is left out: " in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_a_letter_belongs_to_the_script_of_its_name() -> None:
    assert walks._is_letter("\u0915", "Devanagari")
    assert not walks._is_letter("\u0915", "Thai")
    assert not walks._is_letter("\u0967", "Devanagari")  # a digit
