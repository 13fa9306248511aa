from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nearfar.cli import main
from nearfar.files import read_json, read_yaml, replace_json
from nearfar.report.beside import beside, page_data
from nearfar.report.record import read
from nearfar.training.directory import write_config
from nearfar.training.journal import Journal


@pytest.fixture
def other(written: dict[str, Path], tmp_path: Path) -> Path:
    """The plain run with another temperature, slower to learn."""
    copy = Path(shutil.copytree(written["plain"], tmp_path / "other"))
    write_config(copy, read_yaml(copy / "config.yaml", "") | {"temperature": 0.07})
    lines = read(copy).metrics
    (copy / "metrics.jsonl").unlink()
    for line in lines:
        slower = line | {"loss": line["loss"] + 1} if line.get("loss") is not None else line
        Journal(copy / "metrics.jsonl").write(slower)
    return copy


def test_the_page_has_both(run: Path, other: Path) -> None:
    page = page_data(read(run), read(other))
    assert (page.names, page.titles) == (("run", "other"), ("moco on flowers", "moco on flowers"))
    assert page.settings == [("temperature", "–", "0.07")]
    (results,) = page.results
    assert [row.name for row in results.table.rows] == ["raw pixels", "untrained encoder", "run", "other"]
    assert [row.main for row in results.table.rows] == [False, False, True, False]
    assert results.table.rows[3].cells[0]["value"] == 80.7
    assert results.same_protocol
    for curve in page.curves:
        assert (curve["name"], curve["beside"]["name"]) == ("run", "other")
        if curve["key"] == "loss":
            assert curve["beside"]["y"][0] == pytest.approx(curve["y"][0] + 1)
    assert {curve["key"] for curve in page.curves} >= {"loss", "knn", "lr"}


def test_other_protocols_are_noticed(run: Path, other: Path) -> None:
    path = other / "results/demo.json"
    replace_json(path, read_json(path, "") | {"protocol": {"version": 99}})
    assert not page_data(read(run), read(other)).results[0].same_protocol


def test_runs_of_one_name_are_called_by_their_paths(run: Path, tmp_path: Path) -> None:
    namesake = Path(shutil.copytree(run, tmp_path / "elsewhere" / "run"))
    shutil.rmtree(namesake / "results")
    page = page_data(read(run), read(namesake))
    assert page.names == (str(run), str(namesake))
    assert page.results == page.settings == []


def test_the_page_has_the_name_of_the_other_run_as_far_as_it_fits(
    run: Path, written: dict[str, Path], short_scripts: None
) -> None:
    long = run.rename(run.with_name("ä" * 127))
    assert beside(written["plain"], long) == written["plain"] / f"report-beside-{'ä' * 75}.html"
    assert beside(long, written["plain"]) == long / "report-beside-plain.html"


def test_two_different_runs_are_wanted(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run), str(run)]) == 2
    assert "are the same run: give two" in capsys.readouterr().err
    assert main(["report", str(run), str(run / "nothing")]) == 2
