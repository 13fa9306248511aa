"""From a run and a few labels to names for new samples, on the command line."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tyro

from nearfar.cli import main
from nearfar.cli.console import Console
from nearfar.cli.fewlabels import Distill, Finetune, PlanLabels
from nearfar.fewlabels.settings import DistillSettings, FinetuneSettings, LabelPlanSettings
from tests.fewlabels.conftest import Stop
from tests.tiny import contents, folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 60 images of four classes, and labels.csv beside it: a third of them is the test part."""
    root = tmp_path_factory.mktemp("photos")
    folder(root / "photos", 60)
    lines = [f"{i:03d}.png,angle{i % 4},{'test' if i // 4 % 3 == 0 else 'train'}" for i in range(60)]
    (root / "labels.csv").write_text("\n".join(["path,label,split", *lines]) + "\n", encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def classifier(run: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("classifiers") / "c"
    given = [str(run), str(photos / "photos"), "--labels", str(photos / "labels.csv"), "--out", str(out)]
    assert main(["finetune", *given]) == 0
    return out


def facts(path: Path) -> dict[str, object]:
    return json.loads((path / "classifier.json").read_text())["facts"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals of this kind are of POSIX")
def test_a_stopped_one_says_how_to_go_on(
    run: Path, photos: Path, classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = [str(photos / "photos"), "--labels", str(photos / "labels.csv"), "--batch", "16", "--epochs", "3"]
    for name, source, flags in (("finetune", run, ["--train", "full"]), ("distill", classifier, [])):
        words = [name, str(source), *data, *flags, "--out", str(tmp_path / name)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Console, "watch", Stop(1))
            assert main(words) == 130
        said = capsys.readouterr().out
        assert f"Stopped and saved. Go on with: {shlex.join(['nearfar', *words])} --resume" in said
        assert main([*words, "--resume"]) == 0
        assert "Going on from step " in capsys.readouterr().out
        assert not (tmp_path / name / "checkpoints").exists()


def test_flags_fill_the_settings_of_the_functions() -> None:
    def parse(kind: type, *words: str) -> object:
        return tyro.cli(kind, args=["a", "b", *words], config=(tyro.conf.OmitArgPrefixes,)).settings

    assert parse(Finetune) == FinetuneSettings()
    assert parse(Distill) == DistillSettings()
    assert parse(PlanLabels) == LabelPlanSettings()
    words = "--labels x.csv --label-column kind --train full --layer 1 --epochs 2 --batch 16 --lr 0.5 --share 0.5"
    assert parse(Finetune, *words.split()) == FinetuneSettings(
        labels="x.csv", label_column="kind", train="full", layer=1, epochs=2, batch=16, lr=0.5, share=0.5
    )
    words = "--student conv4 --from-run r --alpha 0.5 --temperature 0.1 --scaled --seed 3 --device cpu --views cmc"
    assert parse(Distill, *words.split()) == DistillSettings(
        student="conv4", from_run="r", alpha=0.5, temperature=0.1, scaled=True, seed=3, device="cpu", views="cmc"
    )
    assert parse(PlanLabels, "--by", "coverage", "--count", "7") == LabelPlanSettings(by="coverage", count=7)


def test_finetune_and_what_one_does_with_its_directory(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, before = tmp_path / "c", contents(run)
    given = [str(run), str(photos / "photos"), "--labels", str(photos / "labels.csv"), "--out", str(out)]
    asked = ["--train", "full", "--layer", "1", "--epochs", "1", "--batch", "16", "--lr", "0.001", "--share", "0.5"]
    assert main(["finetune", *given, *asked]) == 0
    output = capsys.readouterr().out
    assert "20 labels of 4 classes" in output
    assert f"Probabilities: {facts(out)['calibration']}." in output
    assert f"nearfar predict {out} {photos / 'photos'}\n" in output
    assert contents(run) == before
    expected = {"train": "full", "layer": 1, "epochs": 1, "batch": 16, "lr": 0.001, "share": 0.5, "learned": 20}
    expected |= {"data": str(photos / "photos"), "labels": str(photos / "labels.csv"), "calibration_rows": 0}
    assert {name: facts(out)[name] for name in expected} == expected
    for command in (["report", str(out)], ["export", str(out)], ["embed", str(out), str(photos / "photos")]):
        assert main(command) == 0
    assert main(["evaluate", str(out), str(photos / "photos"), "--labels", str(photos / "labels.csv")]) == 0
    capsys.readouterr()
    assert main(["finetune", *given]) == 2
    assert "name another --out" in capsys.readouterr().err


def test_predict_shows_few_and_writes_many(
    classifier: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    two = [os.path.relpath(photos / "photos" / f"{i:03d}.png") for i in (5, 7)]
    assert main(["predict", str(classifier), *two]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == two[0]
    assert lines[1].startswith("  angle")
    assert "1.00 like 005.png, which is angle1" in lines[2]  # a labeled image itself
    assert lines[5] == two[1]
    assert os.listdir() == []
    assert main(["predict", str(classifier), two[0], "--out", "one.csv", "--near", "1"]) == 0
    assert main(["predict", str(classifier), str(photos / "photos")]) == 0
    assert len(list(csv.DictReader(Path("one.csv").read_text(encoding="utf-8").splitlines()))) == 1
    rows = list(csv.DictReader(Path("predictions.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["path"] for row in rows] == [f"{i:03d}.png" for i in range(60)]
    assert np.mean([row["label"] == f"angle{i % 4}" for i, row in enumerate(rows)]) > 0.5
    for given in ([str(photos / "photos")], [two[0], "--out", "one.csv"]):
        assert main(["predict", str(classifier), *given]) == 2
        assert "is there already: name another" in capsys.readouterr().err


def test_predict_names_what_it_could_not_read_or_calibrate(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "c"
    given = [str(run), str(photos / "photos"), "--labels", str(photos / "labels.csv"), "--out", str(out)]
    assert main(["finetune", *given, "--per-class", "1"]) == 0
    assert (facts(out)["calibration_rows"], facts(out)["learned"]) == (0, 4)
    shutil.copytree(photos / "photos", tmp_path / "new")
    (tmp_path / "new" / "003.png").write_bytes(b"no image")
    capsys.readouterr()
    assert main(["predict", str(out), *(str(tmp_path / "new" / f"{i:03d}.png") for i in (3, 4))]) == 0
    output = capsys.readouterr().out
    assert f"1 file could not be read: no row, such as of '{tmp_path / 'new' / '003.png'}'" in output
    assert f"Probabilities: {facts(out)['calibration']}. Read them as an order only." in output


@pytest.mark.parametrize("command", ["predict", "distill"])
def test_a_plain_run_names_what_makes_a_classifier(
    run: Path, photos: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, str(run), str(photos / "photos")]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"nearfar {command}: ")
    assert f"nearfar finetune {run} DATA --labels labels.csv" in message


def test_finetune_without_labels(run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", str(run), str(photos / "photos"), "--out", str(tmp_path / "c")]) == 2
    assert "give --labels FILE" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_distill_makes_a_classifier(
    classifier: Path, run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "s"
    asked = ["--labels", str(photos / "labels.csv"), "--from-run", str(run), "--epochs", "1", "--batch", "16"]
    assert main(["distill", str(classifier), str(photos / "photos"), *asked, "--out", str(out)]) == 0
    expected = {"train": "distilled", "teacher": str(classifier), "start": str(run), "learned": 40, "epochs": 1}
    assert {name: facts(out)[name] for name in expected} == expected
    capsys.readouterr()
    assert main(["predict", str(out), str(photos / "photos" / "001.png")]) == 0
    assert capsys.readouterr().out.count(" like ") == 3


def test_label_plan_writes_a_table_that_finetune_reads(
    run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["label-plan", str(run), str(photos / "photos"), "--count", "8"]) == 0
    assert Path("label-plan.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader(Path("label-plan.csv").read_text(encoding="utf-8").splitlines()))
    assert len({row["path"] for row in rows}) == 8
    assert {row["label"] for row in rows} == {""}
    assert main(["label-plan", str(run), str(photos / "photos"), "--count", "8"]) == 2
    assert "perhaps with labels in it" in capsys.readouterr().err
    with open("filled.csv", "w", encoding="utf-8") as file:
        file.write("path,label\n" + "".join(f"{row['path']},angle{int(row['path'][:3]) % 4}\n" for row in rows))
    given = [str(run), str(photos / "photos"), "--labels", "filled.csv", "--out", "c"]
    assert main(["finetune", *given]) == 0
    assert facts(Path("c"))["learned"] == 8


def test_settings_that_make_no_sense_are_refused_before_anything_is_opened(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", "nowhere", "nothing", "--epochs", "-1"]) == 2
    assert capsys.readouterr().err == "nearfar finetune: --epochs -1: a whole number of 0 or more is needed\n"
    assert main(["compare", "simclr", "nothing"]) == 2
    assert "two are needed" in capsys.readouterr().err
