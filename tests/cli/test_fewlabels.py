"""From a run and a few labels to names for new samples, on the command line."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from nearfar.cli import main
from nearfar.fewlabels.finetuning import Tuning
from tests.tiny import folder
from tests.training.test_job import files


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 60 images of four classes, and labels.csv beside it: a third of them is the test part."""
    root = tmp_path_factory.mktemp("photos")
    folder(root / "photos", 60)
    lines = [f"{i:03d}.png,angle{i % 4},{'test' if i // 4 % 3 == 0 else 'train'}" for i in range(60)]
    (root / "labels.csv").write_text("\n".join(["path,label,split", *lines]) + "\n", encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def made(run: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "c"
    given = [str(run), str(photos / "photos"), "--labels", str(photos / "labels.csv"), "--out", str(out)]
    assert main(["finetune", *given]) == 0
    return out


def test_finetune_says_what_came_of_it(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, before = tmp_path / "c", files(run)
    given = [str(run), str(photos / "photos"), "--labels", str(photos / "labels.csv"), "--out", str(out)]
    assert main(["finetune", *given, "--per-class", "3"]) == 0
    said = capsys.readouterr().out
    assert f"12 labels of 4 classes, on the trained encoder of {str(run)!r}, frozen." in said
    assert "In 3 folds, " in said
    assert "of 20 test samples are named right (95 % interval" in said
    assert "Probabilities: not calibrated, as 20 labeled rows to do it by are wanted and there are 12." in said
    assert f"Classifier: {out}\n" in said
    assert f"Go on:      nearfar predict {out} FILES" in said
    assert files(run) == before
    assert main(["finetune", *given]) == 2
    assert "is there already and is never overwritten: name another --out" in capsys.readouterr().err


def test_finetune_of_the_whole_network(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "c"
    given = [str(run), str(photos / "photos"), "--labels", str(photos / "labels.csv"), "--out", str(out)]
    asked = ["--train", "full", "--layer", "1", "--epochs", "2", "--batch", "16", "--lr", "0.001", "--share", "0.5"]
    assert main(["finetune", *given, *asked]) == 0
    said = capsys.readouterr().out
    assert "20 labels of 4 classes, on the trained encoder and the projector up to layer 1" in said
    assert "20 labels of 4 classes are too few to hold some out" in said
    assert (out / "metrics.jsonl").is_file()
    for command in (["report", str(out)], ["export", str(out)], ["embed", str(out), str(photos / "photos")]):
        assert main(command) == 0
    assert main(["evaluate", str(out), str(photos / "photos"), "--labels", str(photos / "labels.csv")]) == 0


def test_flags_have_the_defaults_of_the_function() -> None:
    from nearfar.cli.fewlabels import Distill, Finetune
    from nearfar.fewlabels.distillation import DistillTuning

    for asked, tuning in ((Finetune, Tuning()), (Distill, DistillTuning())):
        for name in ("epochs", "batch", "lr", "device", "seed"):
            assert asked.__dataclass_fields__[name].default == getattr(tuning, name), (asked, name)


def test_predict_shows_few_and_writes_many(
    made: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    two = [os.path.relpath(photos / "photos" / f"{i:03d}.png") for i in (5, 7)]
    assert main(["predict", str(made), *two]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == two[0]
    assert said[1].startswith("  angle")
    assert said[1].endswith(" %")
    assert "1.00 like 005.png, which is angle1" in said[2]  # a labeled image itself
    assert said[5] == two[1]
    assert os.listdir() == []
    assert main(["predict", str(made), two[0], "--out", "one.csv", "--near", "1"]) == 0
    assert "1 predictions: one.csv" in capsys.readouterr().out
    assert main(["predict", str(made), str(photos / "photos")]) == 0
    assert capsys.readouterr().out == "60 predictions: predictions.csv\n"
    rows = list(csv.DictReader(Path("predictions.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["path"] for row in rows] == [f"{i:03d}.png" for i in range(60)]
    assert np.mean([row["label"] == f"angle{i % 4}" for i, row in enumerate(rows)]) > 0.5
    for given in ([str(photos / "photos")], [two[0], "--out", "one.csv"]):
        assert main(["predict", str(made), *given]) == 2
        assert "is there already: name another" in capsys.readouterr().err


def test_predict_says_what_it_could_not_read_or_calibrate(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "c"
    given = [str(run), str(photos / "photos"), "--labels", str(photos / "labels.csv"), "--out", str(out)]
    assert main(["finetune", *given, "--per-class", "1"]) == 0
    shutil.copytree(photos / "photos", tmp_path / "new")
    (tmp_path / "new" / "003.png").write_bytes(b"no image")
    capsys.readouterr()
    assert main(["predict", str(out), *(str(tmp_path / "new" / f"{i:03d}.png") for i in (3, 4))]) == 0
    said = capsys.readouterr().out
    assert "1 files could not be read and have no row" in said
    assert "The probabilities are not calibrated, as 20 labeled rows" in said
    assert "take them as an order, not as chances" in said


@pytest.mark.parametrize("command", ["predict", "distill"])
def test_a_plain_run_is_told_what_makes_a_classifier(
    run: Path, photos: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, str(run), str(photos / "photos")]) == 2
    told = capsys.readouterr().err
    assert f"nearfar {command}: {str(run)!r} is a run without a classifier" in told
    assert f"nearfar finetune {run} DATA --labels labels.csv" in told


def test_finetune_without_labels_says_so(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["finetune", str(run), str(photos / "photos"), "--out", str(tmp_path / "c")]) == 2
    assert "no sample to learn from has a label: give --labels FILE" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_distill_makes_a_classifier(
    made: Path, run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "s"
    asked = ["--labels", str(photos / "labels.csv"), "--from-run", str(run), "--epochs", "2", "--batch", "16"]
    assert main(["distill", str(made), str(photos / "photos"), *asked, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "learns from" in said
    assert "on 40 samples" in said
    assert "Probabilities: temperature brought to what the calibrated teacher believes." in said
    assert main(["predict", str(out), str(photos / "photos" / "001.png")]) == 0
    assert capsys.readouterr().out.count(" like ") == 3
