"""Classes of pixels, told from the maps of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from nearfar.cli import main
from nearfar.dense import scene as scenes_of
from nearfar.dense.segmentation import _colors, segment
from nearfar.run import load


def result(run: Path, name: str) -> dict[str, Any]:
    (path,) = sorted((run / "results").glob(f"{name}-*.json"), key=lambda p: p.stat().st_mtime)[-1:]
    return json.loads(path.read_text())


def test_the_command_line_tells_and_keeps_it(run: Path, scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(scenes / "index.csv")
    assert main(["evaluate", str(run), data, "--masks", str(scenes / "masks"), "--ignore", "9", "--size", "32"]) == 0
    made = result(run, "masks")
    assert [row["name"] for row in made["rows"]] == ["color and position", "untrained encoder", "trained encoder"]
    for row in made["rows"]:
        cell = row["values"]["mIoU (%)"]
        assert 70 < cell["value"] <= 100
        assert cell["low"] <= cell["value"] <= cell["high"]
    assert [row["name"] for row in made["per_class"]["rows"]] == ["0", "1", "2"]
    assert made["protocol"]["side"] == 32
    assert "6 images of the split test; learned from 12" in capsys.readouterr().out
    assert "data:image/jpeg" in (run / "report.html").read_text()


def test_without_a_split_folds_are_tested_and_the_column_names_the_masks(run: Path, scenes: Path) -> None:
    opened = load(run)
    data = (scenes / "index.csv").read_text().replace(",test", ",").replace(",train", ",")
    lines = [line for line in data.splitlines() if not line.startswith("#")]
    lines[1] = lines[1].replace("masks/00.png", "")
    (scenes / "folds.csv").write_text("\n".join(lines))
    said: list[str] = []
    made = segment(opened, scenes / "folds.csv", "mask", instances=True, size=32, say=said.append)
    assert made["seen"] == {"samples": 12, "of": 17, "with labels": False}
    assert any("1 of 18 images have no mask" in line and "00.png" in line for line in said)
    assert "3 folds by a seed, of 17 images" in made["note"]
    assert made["rows"][-1]["values"]["Dice (%)"]["value"] > 80


def test_a_class_that_only_tested_masks_have_is_named(run: Path, scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    for path in (scenes / "masks").iterdir():
        second = 7 if path.stem == "03" else 1  # an image that is tested
        Image.open(path).point([0, 1, second] + [0] * 253).save(tmp_path / "masks" / path.name)
    said: list[str] = []
    made = segment(load(run), scenes / "index.csv", tmp_path / "masks", size=32, say=said.append)
    assert any("in no training mask" in line and "'7'" in line for line in said)
    assert made["per_class"]["rows"][2]["values"]["IoU (%)"]["value"] == 0


def test_the_untrained_network_has_the_weights_of_before(run: Path, scenes: Path) -> None:
    opened = scenes_of.opened(load(run), scenes / "index.csv", 32, print)
    looks = opened.looks()
    assert list(looks) == ["untrained encoder", "trained encoder"]
    one, two = (looks[name](torch.arange(3)) for name in looks)
    assert (
        [m.shape for m in one]
        == [m.shape for m in two]
        == [(3, c, s, s) for c, s in zip((32, 64, 128, 128), (16, 8, 4, 2), strict=True)]
    )
    assert not torch.equal(one[-1], two[-1])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--masks", "no"], "--masks 'no' is neither a folder nor a column: the columns are path, mask, split"),
        (["--masks", "mask", "--boxes", "b.csv"], "--masks and --boxes are measured apart"),
        (["--correspondences", "--labels", "l.csv"], "--correspondences and --labels are measured apart"),
        (["--annotated-only"], "--annotated-only goes with --boxes"),
        (["--finetune", "--correspondences"], "--finetune goes with --masks or --boxes"),
        (["--boxes", "gone.csv"], "there is no such file or folder"),
    ],
)
def test_what_does_not_go_together_is_refused(
    run: Path, scenes: Path, flags: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run), str(scenes / "index.csv"), *flags]) == 2
    assert words in capsys.readouterr().err.replace("\n", " ")


def test_a_copy_of_the_encoder_is_trained_with_a_head(run: Path, scenes: Path) -> None:
    opened = load(run)
    before = {name: value.clone() for name, value in opened.encoder.state_dict().items()}
    made = segment(opened, scenes / "index.csv", "mask", ignore=9, size=32, finetune=True, steps=15)
    assert [row["name"] for row in made["rows"]] == ["untrained encoder", "trained encoder"]
    assert all(row["values"]["mIoU (%)"]["value"] > 60 for row in made["rows"])
    assert all(torch.equal(value, before[name]) for name, value in opened.encoder.state_dict().items())
    assert "trained together for 15 steps" in made["note"]


def test_colors_know_nothing_of_padding(run: Path, scenes: Path) -> None:
    opened = scenes_of.opened(load(run), scenes / "index.csv", 32, print)
    view, index = opened.whole.view(torch.tensor([0])), torch.tensor([0])
    (made,) = opened.whole_look(_colors)(index)
    near, wide = made[0, 3:6], made[0, 6:9]
    assert opened.whole.extent(0) == (24, 32)
    assert torch.allclose(near[:, 23, 10], view[0, :, 22:24, 9:12].mean((1, 2)), atol=1e-5)
    assert torch.allclose(wide[:, 22, 31], view[0, :, 18:24, 27:32].mean((1, 2)), atol=1e-5)
