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


def test_given_weights_are_a_row(run: Path, scenes: Path, tmp_path: Path) -> None:
    weights = ["--weights", str(run / "encoder.safetensors"), "--encoder", "conv4"]
    flags = ["--size", "16", "--epochs", "1", "--batch", "8", "--probe-every", "0", "--out", str(tmp_path / "on")]
    assert main(["train", "simclr", str(scenes / "index.csv"), *weights, *flags]) == 0
    words = ["evaluate", str(tmp_path / "on"), str(scenes / "index.csv"), "--size", "32"]
    assert main([*words, "--correspondences"]) == 0
    names = ["raw pixels", "untrained encoder", "given weights", "trained encoder"]
    assert [row["name"] for row in result(tmp_path / "on", "correspondences")["rows"]] == names
