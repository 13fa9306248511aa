"""Images by a run: which, where to, and how near they come."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nearfar import generation
from nearfar.cli import main
from nearfar.evaluation.generated import frechet
from nearfar.run import load
from tests.tiny import contents, folder

SMALL = ("--encoder", "biggan4", "--width", "2", "--latent", "8", "--dim", "4", "--batch", "16", "--epochs", "1")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("data") / "images", 32, nested=True)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", "contragan", str(data), "--labels", "folders", *SMALL, "--out", str(out)]) == 0
    return out


def test_images_of_classes_are_written_and_are_the_same_again(run: Path, data: Path, tmp_path: Path) -> None:
    words = ["generate", str(run), "--class", "class2", "class0", "--count", "3", "--out", str(tmp_path / "made")]
    assert main(words) == 0
    made = contents(tmp_path / "made")
    names = {f"images/class{c}/{i:05d}.png" for c in (0, 2) for i in range(3)}
    assert set(made) == names | {"sheet.png", "generated.json"}
    opened = load(run).open(tmp_path / "made" / "images", labels="folders")
    assert (len(opened), opened.classes) == (6, ["class0", "class2"])
    with Image.open(tmp_path / "made" / "images" / "class0" / "00000.png") as image:
        assert (image.mode, image.size) == ("L", (16, 16))
    assert main([*words[:-1], str(tmp_path / "again")]) == 0
    again = contents(tmp_path / "again")
    assert {name: again[name] for name in names} == {name: made[name] for name in names}
    other = generation.generate(load(run), ["class0"], count=3, seed=1).pixels
    assert not torch.equal(other, generation.generate(load(run), ["class0"], count=3).pixels)


def test_only_our_own_files_are_replaced(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "made"
    words = ["generate", str(run), "--class", "class1", "--out", str(out)]
    assert main([*words, "--count", "4"]) == 0
    (out / "images" / "mine.png").write_bytes(b"mine")
    assert main([*words, "--count", "2"]) == 2
    assert "--force" in capsys.readouterr().err
    assert main([*words, "--count", "2", "--force"]) == 0
    assert sorted(path.name for path in (out / "images").rglob("*.png")) == ["00000.png", "00001.png", "mine.png"]
    own = tmp_path / "photos"
    folder(own / "images", 4)
    before = contents(own)
    assert main([*words[:-1], str(own), "--force"]) == 2
    assert contents(own) == before


def test_what_cannot_be_generated_is_named_before_anything_is_written(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made"
    assert (
        main(["train", "simclr", str(data), "--encoder", "conv4", "--epochs", "1", "--out", str(tmp_path / "simclr")])
        == 0
    )
    capsys.readouterr()
    for words, told in (
        ([str(run), "--class", "class9"], "did you mean 'class"),
        ([str(tmp_path / "simclr")], "generates nothing"),
        ([str(run), "--judge", str(run), "--weights", "w.pth"], "give one of them"),
        ([str(run), "--weights", str(tmp_path / "none.pth")], "there is no such file"),
        ([str(run), "--data", str(tmp_path / "gone")], "gone"),
    ):
        assert main(["generate", *words, "--out", str(out)]) == 2
        error = capsys.readouterr().err
        assert told in error
        assert error.count("\n") == 1
        assert not out.exists()


def test_names_of_classes_become_folders_of_their_own() -> None:
    assert generation._folder_names(["a/b", "a b", "A_B", "..", "é", ""]) == ["a_b", "a_b-1", "A_B-2", "-3", "é", ""]


def test_images_are_judged_in_an_encoder_that_is_named(run: Path, data: Path, tmp_path: Path) -> None:
    """The numbers are those of the two parts of the data, by hand."""
    words = ["generate", str(run), "--judge", str(run), "--count", "4", "--out", str(tmp_path / "made")]
    assert main(words) == 0
    (written,) = (run / "results").glob(f"generated-{data.name}-*.json")
    table = json.loads(written.read_text())
    assert table["data"] == data.name
    values = table["rows"][0]["values"]
    opened = load(run)
    made = generation.generate(opened, count=4)
    real, ours = opened.embed(data), opened.embed(made.arrays)
    test = torch.rand(32, generator=torch.Generator().manual_seed(0)).argsort() < 10
    order = torch.Generator().manual_seed(0)
    torch.rand(32, generator=order)
    some = torch.randperm(16, generator=order)[:10]
    assert values["FID in run"]["value"] == pytest.approx(frechet(real[~test], ours[some]), rel=1e-4)
    best = values["FID in run, of other real images"]["value"]
    assert best == pytest.approx(frechet(real[~test], real[test]), rel=1e-4)
    assert best < values["FID in run"]["value"]
    assert (table["protocol"]["images"], table["protocol"]["real"]) == (10, 22)
    assert "FID in run" in (run / "report.html").read_text(encoding="utf-8")


def test_weights_off_the_shelf_judge_too(run: Path, tmp_path: Path) -> None:
    import timm

    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "weights.pth")
    words = ["--network", "test_resnet", "--weights", str(tmp_path / "weights.pth"), "--count", "4"]
    assert main(["generate", str(run), *words, "--out", str(tmp_path / "made")]) == 0
    tables = [json.loads(path.read_text()) for path in (run / "results").glob("generated-*.json")]
    (table,) = [table for table in tables if table["protocol"]["judge"] == "test_resnet with weights.pth"]
    assert table["rows"][0]["values"]["FID in test_resnet with weights.pth"]["value"] > 0


def test_a_generator_that_copies_is_found_out(run: Path, data: Path) -> None:
    """Real images in the place of made ones: nothing is nearer, and the row below shows them again."""
    opened = load(run)
    samples: Any = opened.open(data, labels="folders")
    order = samples.label.argsort(stable=True)
    pixels = samples.pixels(order)
    made = generation.Made(pixels, samples.label[order], samples.classes)
    sheet = np.asarray(generation.sheet(opened, made, data=samples))
    side, top, row = 64, 20, 64 + 22 + 4
    for line in range(0, 8, 2):
        above, below = (
            sheet[top + 22 + row * (line + k) : top + 22 + row * (line + k) + side, 20 : 20 + 8 * 68] for k in (0, 1)
        )
        np.testing.assert_array_equal(above, below)
    table = generation.quality(opened, made, samples, generation.Judge.of(opened))
    assert table["data"] == "Images"
    values = table["rows"][0]["values"]
    assert values["FID in run"]["value"] < 3 * values["FID in run, of other real images"]["value"]
    assert values["class accuracy (%)"]["value"] > 60
