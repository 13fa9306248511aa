"""Objects found by a light head on the maps of a run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from nearfar.cli import main
from nearfar.dense.detection import Detector, detect
from nearfar.run import load
from tests.dense.test_segmentation import result

pytest.importorskip("torchvision", reason="torchvision is not installed (the extra detection)")


def test_the_command_line_finds_boxes(run: Path, scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--box-origin", "1", "--size", "32", "--steps", "30", "--seeds", "2"]
    assert main(["evaluate", str(run), str(scenes / "index.csv"), "--boxes", str(scenes / "boxes.csv"), *flags]) == 0
    made = result(run, "boxes")
    assert [row["name"] for row in made["rows"]] == ["untrained encoder", "trained encoder"]
    cell = made["rows"][-1]["values"]["AP50 (%)"]
    assert cell["value"] > 5
    assert cell["low"] <= cell["value"] <= cell["high"]
    assert [row["name"] for row in made["per_class"]["rows"]] == ["green", "red"]
    assert made["protocol"]["steps"] == 30
    assert "6 images of the split test; learned from 12" in capsys.readouterr().out


def test_an_encoder_that_is_trained_with_it_stays_as_it_was(run: Path, scenes: Path) -> None:
    opened = load(run)
    before = {name: value.clone() for name, value in opened.encoder.state_dict().items()}
    said: list[str] = []
    boxes = scenes / "some.csv"
    lines = [
        line for line in (scenes / "boxes.csv").read_text().splitlines() if not line.startswith(("#", "images/05"))
    ]
    boxes.write_text("\n".join(lines))
    flags = {"box_origin": 1, "size": 32, "steps": 2, "seeds": 1, "finetune": True, "annotated_only": True}
    made = detect(opened, scenes / "images", boxes, **flags, say=said.append)
    assert all(torch.equal(value, before[name]) for name, value in opened.encoder.state_dict().items())
    assert "trained with it" in made["note"]
    assert "a split by a seed" in made["note"]
    assert any("1 of 18 images have no boxes: they are left out" in line for line in said)


def test_a_grid_of_one_size_has_a_finer_level_and_boxes_stay_inside() -> None:
    torch.manual_seed(0)
    given = [torch.randn(2, 8, 4, 4), torch.randn(2, 8, 4, 4)]
    detector = Detector(given, 64, 2).eval()
    assert [norm.num_features for norm in detector.norms] == [16, 16]
    detector.fcos.score_thresh = 0.0
    for guess, (height, width) in zip(detector.guess(given, [(64, 30), (20, 64)]), [(64, 30), (20, 64)], strict=True):
        assert len(guess.boxes)
        assert guess.boxes.min() >= 0
        assert guess.boxes[:, 2].max() <= width
        assert guess.boxes[:, 3].max() <= height


def test_without_torchvision_the_extra_is_named(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert main(["evaluate", str(run), "nowhere", "--boxes", "b.csv"]) == 2
    assert "nearfar[detection]" in capsys.readouterr().err
