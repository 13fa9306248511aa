"""Places that the maps of a run know again."""

from __future__ import annotations

from pathlib import Path

from nearfar.cli import main
from tests.dense.test_segmentation import result


def test_the_command_line_measures_without_labels(run: Path, scenes: Path) -> None:
    assert main(["evaluate", str(run), str(scenes / "index.csv"), "--correspondences", "--size", "32"]) == 0
    made = result(run, "correspondences")
    assert [row["name"] for row in made["rows"]] == ["raw pixels", "untrained encoder", "trained encoder"]
    cell = made["rows"][0]["values"]["found again (%)"]
    assert cell["low"] <= cell["value"] <= cell["high"]
    assert made["seen"] == {"samples": 0, "of": 6, "with labels": False}
    assert 0 < made["chance"]["found again (%)"] <= 100
