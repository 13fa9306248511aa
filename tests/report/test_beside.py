from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from nearfar.cli import main
from nearfar.report.beside import beside, overlaid
from nearfar.report.record import read


@pytest.fixture
def other(written: dict[str, Path], tmp_path: Path) -> Path:
    """The plain run with another temperature, slower to learn."""
    copy = Path(shutil.copytree(written["plain"], tmp_path / "other"))
    config = yaml.safe_load((copy / "config.yaml").read_text())
    (copy / "config.yaml").write_text(yaml.safe_dump(config | {"temperature": 0.07}))
    lines = read(copy).metrics
    slower = [line | {"loss": line["loss"] + 1} if line.get("loss") is not None else line for line in lines]
    (copy / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in slower))
    return copy


def test_the_page_has_both(run: Path, other: Path) -> None:
    page = beside(run, other)
    assert page == run / "report-beside-other.html"
    text = page.read_text(encoding="utf-8")
    assert "<h1>run beside other</h1>" in text
    assert "temperature" in text
    assert "different protocols" not in text
    for curve in overlaid(read(run), read(other), ("run", "other")):
        assert (curve["name"], curve["beside"]["name"]) == ("run", "other")
        if curve["key"] == "loss":
            assert curve["beside"]["y"][0] == pytest.approx(curve["y"][0] + 1)


def test_other_protocols_are_told(run: Path, other: Path) -> None:
    for path in (other / "results").glob("*.json"):
        table = json.loads(path.read_text())
        if "rows" in table:
            path.write_text(json.dumps(table | {"protocol": {"version": 99}}))
    assert "different protocols, so compare with care" in beside(run, other).read_text(encoding="utf-8")


def test_nothing_in_common_is_said(run: Path, other: Path) -> None:
    shutil.rmtree(other / "results")
    assert "no measurement in common" in beside(run, other).read_text(encoding="utf-8")


def test_hostile_names_are_escaped(run: Path, other: Path) -> None:
    evil = other.rename(other.with_name("<img src=x onerror=alert(1)>"))
    assert "<img src=x" not in beside(run, evil).read_text(encoding="utf-8").split("<body", 1)[1]


def test_two_different_runs_are_wanted(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run), str(run)]) == 2
    assert "are the same run: give two" in capsys.readouterr().err
    assert main(["report", str(run), str(run / "nothing")]) == 2
