"""`nearfar views`, and views of one's own from the first step to the commands that open the run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

import nearfar
from nearfar.cli import main
from nearfar.files import file_digest
from nearfar.training.directory import read_config
from tests.tiny import array_file

SHORT = ("--encoder", "conv4", "--epochs", "2", "--batch", "16", "--probe-every", "0")

MINE = """
import numpy as np
import torch
from torchvision.transforms import v2

crop = v2.Compose([v2.RandomResizedCrop(16, scale=(0.5, 1)), v2.RandomVerticalFlip()])
own = np.random.default_rng(0)

def sized(size):
    return [v2.RandomCrop(size, padding=2), v2.RandomResizedCrop(size)]

def _odd(x):
    return x // int(own.integers(1, 5))

odd = [_odd, _odd]
wrong = v2.RandomCrop(5), v2.Grayscale(3)
"""


def colored_file(path: Path, n: int = 40) -> Path:
    """A .npz of images of two labels, which differ in color alone."""
    x = np.random.default_rng(0).integers(60, 120, (n, 16, 16, 1)).repeat(3, 3)
    x[::2, :, :, 0] += 100
    x[1::2] += np.array([0, 32, 100])
    np.savez(path, images=x.astype(np.uint8), labels=np.arange(n) % 2)
    return path


def test_views_stand_side_by_side_with_what_each_change_keeps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = colored_file(tmp_path / "data.npz"), tmp_path / "both.png"
    words = ["views", str(data), "--samples", "3", "--out", str(out)]
    compared = [*words, "--compare", "colorful+gray=0.1+area=0.5,1,cmc"]
    assert main(compared) == 0
    said = capsys.readouterr().out
    table = json.loads(out.with_suffix(".json").read_text())
    assert list(table["views"]) == ["colorful+gray=0.1+area=0.5,1", "cmc"]
    rows = {row["change"]: row for row in table["views"]["colorful+gray=0.1+area=0.5,1"]}
    assert rows["area"]["setting"] == [0.5, 1]
    assert rows["gray"]["lost"][1] > 0 >= rows["flip"]["lost"][1]
    assert f"{rows['gray']['kept']:.0%} (0.1)" in said
    assert "gray costs the most meaning here" in said
    both = Image.open(out)
    assert main([*words, "--views", "cmc", "--force"]) == 0
    alone = Image.open(out)
    assert np.array_equal(np.asarray(both)[44:, -alone.width :], np.asarray(alone))  # the one on the right
    assert main(compared) == 2
    assert "replace it by --force" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--compare", "cmc"], "two views or more"),
        (["--compare", "cmc,cmc"], "names 'cmc' twice"),
        (["--compare", "cmc,nope"], "--views 'nope' is none of"),
        (["--compare", "cmc,simclr+turn=1"], "no 'turn'"),
        (["--compare", "cmc,,simclr"], "a name is missing"),
        (["--compare", "cmc,simclr", "--views", "cmc"], "leave --views and --set out"),
        (["--set", "rotate=200"], "--set 'rotate=200'"),
        (["--views", "cmc", "--set", "color=2"], "change no colors"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    array_file(tmp_path / "data.npz")
    assert main(["views", "data.npz", *words]) == 2
    assert told in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["data.npz"]


def test_changes_are_recorded_and_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, run, other = colored_file(tmp_path / "data.npz"), tmp_path / "run", tmp_path / "other"
    words = ["train", "simclr", "--set", "color=0.5", str(data), *SHORT, "--set", "vflip=0.5", "--views", "moco_v2"]
    words += ["--set=randaugment=1", "cutout=1"]
    assert main([*words, "--out", str(run)]) == 0
    assert read_config(run)["settings"]["set"] == ["color=0.5", "vflip=0.5", "randaugment=1", "cutout=1"]
    assert main([*words, "--epochs", "1", "--out", str(other)]) == 0
    assert main([*words, "--epochs", "2", "--out", str(other), "--resume"]) == 0  # which changes the rate, and says so
    opened = nearfar.load(run)
    views = opened.kind.views(opened.open(data), opened.settings, opened.made)
    assert [(view.vflip, view.cutout, view.hue) for view in views.views] == [(0.5, 1.0, 0.05)] * 2
    assert main(["evaluate", str(run), str(data)]) == 0
    assert main(["finetune", str(run), str(data), "--epochs", "1", "--out", str(tmp_path / "tuned")]) == 0
    capsys.readouterr()
    assert main([*words[:-1], "--out", str(run), "--resume"]) == 2
    assert "set was" in capsys.readouterr().err


def test_methods_of_any_number_of_views_take_large_and_small_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = array_file(tmp_path / "data.npz")
    words = [str(data), "--encoder", "conv4", "--size", "40", "--views", "simclr", "--crops", "2", "1"]
    assert main(["train", "simclr", *words]) == 2
    told = capsys.readouterr().err
    assert "takes 2 views of each sample, and --views simclr --crops 2 1 makes 3: leave --crops out, or" in told
    assert "swav" in told
    assert "moco" not in told.rpartition(":")[2]
    assert "unicon" not in told
    assert main(["train", "unicon", *words]) == 2
    assert "'unicon' wants views of one size" in capsys.readouterr().err
    assert main(["train", "supcon", *words, *SHORT[2:], "--out", str(tmp_path / "run")]) == 0
    assert read_config(tmp_path / "run")["made"]["views"] == 3


def trained(data: Path, out: Path, **flags: object) -> str:
    """The digest of the encoder that a run of two epochs leaves."""
    nearfar.fit(str(data), out=out, say=lambda text: None, encoder="conv4", batch=16, probe_every=0, **flags)
    return file_digest(out / "encoder.safetensors")


def test_transforms_in_a_file_are_taken_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, mine, run = array_file(tmp_path / "data.npz"), tmp_path / "mine.py", tmp_path / "run"
    mine.write_text(MINE, encoding="utf-8")
    words = ["train", "simclr", str(data), *SHORT, "--out", str(run), "--views"]
    assert main([*words, f"{mine}:wrong"]) == 2
    assert "gave a Tensor of uint8, 1 x 5 x 5" not in (told := capsys.readouterr().err)
    assert f"--views {mine}:wrong" in told
    assert "of 1 channels is wanted" in told
    assert not run.exists()
    assert main([*words, f"{mine}:nothing"]) == 2
    assert "has no function 'nothing'" in capsys.readouterr().err
    assert main([*words, f"{mine}:sized", "--set", "flip=1"]) == 2
    assert "--set changes views of nearfar" in capsys.readouterr().err
    assert main([*words, f"{mine}:sized"]) == 0
    assert "called with one image at a time, as bytes C x H x W" in capsys.readouterr().out
    assert read_config(run)["made"]["views_found"]["exact"]
    assert main(["evaluate", str(run), str(data)]) == 0  # which makes no random views
    assert main(["views", str(data), "--views", f"{mine}:crop", "--out", str(tmp_path / "v.png")]) == 0
    assert main([*words[:-2], str(tmp_path / "odd"), "--views", f"{mine}:odd"]) == 0
    assert "cannot be repeated bit for bit" in capsys.readouterr().out
    assert read_config(tmp_path / "odd")["made"]["views_found"]["exact"] is False


def test_objects_are_views_of_images_alone(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("a,b\n" + "1,2\n3,4\n" * 8)
    with pytest.raises(ValueError, match="views of rows are not given as an object, Compose"):
        nearfar.fit(str(tmp_path / "table.csv"), out=tmp_path / "run", views=v2.Compose([v2.Identity()]))
    assert not (tmp_path / "run").exists()


def test_transforms_given_in_python_resume_exactly(tmp_path: Path) -> None:
    data = array_file(tmp_path / "data.npz")

    def crop(strength: float = 0.5) -> v2.Compose:
        return v2.Compose([v2.RandomResizedCrop(16), v2.RandomErasing(p=0.5), v2.ColorJitter(brightness=strength)])

    whole = trained(data, tmp_path / "whole", epochs=2, views=crop(), keep=9)
    saved = read_config(tmp_path / "whole")
    assert saved["settings"]["views"] == "given:Compose"
    assert saved["made"]["views_found"]["from"] == ["torchvision"]
    shutil.copytree(  # as if it had been killed in the second epoch
        tmp_path / "whole", tmp_path / "cut"
    )
    newest = max((tmp_path / "cut" / "checkpoints").iterdir())
    newest.unlink()
    environment = json.loads((tmp_path / "cut" / "environment.json").read_text())
    assert environment["finished"]
    for name in ("environment.json", "encoder.safetensors"):
        (tmp_path / "cut" / name).unlink()
    with pytest.raises(ValueError, match="a run goes on only with its views"):
        trained(data, tmp_path / "cut", epochs=2, views=crop(0.9), keep=9, resume=True)
    with pytest.raises(ValueError, match="were given in Python"):
        trained(data, tmp_path / "cut", epochs=2, views="given:Compose", keep=9, resume=True)
    assert trained(data, tmp_path / "cut", epochs=2, views=crop(), keep=9, resume=True) == whole
    opened = nearfar.load(tmp_path / "cut")
    assert torch.isfinite(opened.embed(opened.open(data))).all()
