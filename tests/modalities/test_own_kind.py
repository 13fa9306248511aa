"""A kind, a recipe and views of the user's own work as a method of one's own does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import nearfar
from nearfar import modalities
from nearfar.batch import MISSING
from nearfar.cli import main
from nearfar.modalities import kind as kinds
from nearfar.modalities import recipes
from tests.modalities.graph.small import array_file
from tests.tiny import evaluated, folder

RAGGED = str(Path(__file__).parent / "ragged")
FLAGS = ("--kind", RAGGED, "--epochs", "2", "--batch", "16", "--optimizer", "adamw", "--lr", "0.01")


def series(path: Path, n: int = 48) -> Path:
    """Rows of 6 to 20 numbers: waves of three frequencies, which are the classes, and noise."""
    random = np.random.default_rng(0)
    lines = []
    for i in range(n):
        time = np.arange(6 + int(random.integers(15)))
        row = np.sin((0.5 + i % 3) * time + random.uniform(0, 6)) + 0.1 * random.normal(size=len(time))
        lines.append(json.dumps({"row": row.round(4).tolist(), "label": f"wave {i % 3}"}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_kind_in_a_folder_has_few_lines() -> None:
    assert len((Path(RAGGED) / "kind.py").read_text(encoding="utf-8").splitlines()) < 150


@pytest.mark.parametrize("method", ["simclr", "moco", "byol", "supcon"])
def test_a_kind_of_ones_own_trains_evaluates_embeds_exports_and_reports(method: str, tmp_path: Path) -> None:
    data, out = series(tmp_path / "waves.jsonl"), tmp_path / "run"
    assert main(["train", method, str(data), "--out", str(out), *FLAGS]) == 0
    assert main(["evaluate", str(out), str(data), "--trust"]) == 0
    run = nearfar.load(out, trust=True)
    features = run.embed(str(data))
    assert features.shape == (48, 16)
    assert features.std(0).min() > 0
    assert not torch.equal(run.encoder.net[0].weight, run.untrained().net[0].weight)
    rows = {row["name"]: row["values"] for row in json.loads(evaluated(out).read_text())["rows"]}
    assert set(rows) == {"raw input", "untrained encoder", "trained encoder"}
    assert rows["trained encoder"]["linear (%)"]["value"] > 40
    assert main(["export", str(out), "--trust"]) == 0
    assert (out / "export" / "encoder.safetensors").is_file()
    assert main(["report", str(out), "--data", str(data), "--trust"]) == 0
    assert (out / "report.html").stat().st_size > 10_000
    assert yaml.safe_load((out / "config.yaml").read_text())["kind"] == RAGGED


def test_no_labels_are_taken_where_none_are_asked_for_whatever_the_kind(tmp_path: Path) -> None:
    data = series(tmp_path / "waves.jsonl")
    images = nearfar.open_images((np.zeros((4, 16, 16, 3), np.uint8), [0, 1, 0, 1]))
    for kind, given in ((RAGGED, str(data)), ("image", images)):
        settings = kinds.of(kind).Settings
        assert kinds.of(kind).samples(given, settings()).label.unique().tolist() == list(
            range(3 if kind == RAGGED else 2)
        )
        bare = kinds.of(kind).samples(given, settings(labels="none"))
        assert (bare.label.unique().tolist(), bare.classes) == ([MISSING], [])


def test_help_shows_the_flags_of_a_kind_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "simclr", "--kind", RAGGED, "--help"])
    shown = capsys.readouterr().out
    assert "--least" in shown
    assert "--crops" not in shown


def test_a_flag_of_another_kind_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = folder(tmp_path / "photos", 8)
    assert main(["train", "simclr", str(images), "--drop", "a"]) == 2
    assert "--drop" in capsys.readouterr().err
    with pytest.raises(TypeError, match=r"'drop'.*table"):
        nearfar.fit(str(images), drop=("a",), out=tmp_path / "run")


def test_kinds_are_recognized_and_named(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("One line.\nAnother line.\n")
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n3,4\n")
    known = {"image": [folder(tmp_path / "photos", 2), "drawings", np.zeros((2, 8, 8), np.uint8)]}
    known |= {"graph": [array_file(tmp_path / "graphs.npz", 4)]}
    known |= {"table": [tmp_path / "rows.csv", {"a": [1, 2]}], "text": [tmp_path / "lines.txt", ["a b", "c d"]]}
    known |= {"audio": [["a.wav", "b.FLAC"], [np.zeros(9)]]}
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "a.mp4").touch()
    known |= {"video": [tmp_path / "films", "clips/a.MOV", np.zeros((2, 3, 8, 8, 3), np.uint8), ["a.mp4", "b.mp4"]]}
    assert sorted(known) == [name for name in modalities.names() if not getattr(modalities.entry(name), "ASKED", False)]
    for name, examples in known.items():
        assert [modalities.kind_of(data) for data in examples] == [name] * len(examples)
        kind = kinds.of(name)
        assert kind.name == name
        assert issubclass(kind.Settings, nearfar.Settings)
        assert modalities.entry(name).Settings is kind.Settings
    with pytest.raises(ValueError, match=r"'sound'.*image.*table, text"):
        modalities.entry("sound")


RECIPE = """
from nearfar import Recipe, Settings

def mine():
    return Recipe(settings=Settings(epochs=2, batch=8, encoder="conv4"), method={"temperature": 0.3})

def wrong():
    return 3
"""
VIEWS = """
from nearfar.modalities.image.views import View, Views

def upright(size):
    return Views([View(size=size, area=(0.5, 1.0)), View(size=size)])
"""


def test_a_recipe_and_views_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipe.py").write_text(RECIPE)
    Path("views.py").write_text(VIEWS)
    photos = folder(tmp_path / "photos", 16)
    words = ["train", "simclr", str(photos), "--recipe", "recipe.py:mine", "--views", "views.py:upright"]
    assert main([*words, "--out", "run"]) == 0
    config = yaml.safe_load(Path("run/config.yaml").read_text())
    assert config["recipe"] == "recipe.py:mine"
    assert config["settings"]["views"] == "views.py:upright"
    assert config["arguments"]["temperature"] == 0.3
    assert (config["settings"]["epochs"], config["batch"]) == (2, 8)
    assert main([*words, "--out", "run", "--resume"]) == 0
    assert main(["views", str(photos), "--views", "views.py:upright", "--out", "sheet.png"]) == 0
    with pytest.raises(ValueError, match=r"recipe.py has no function 'other'"):
        recipes.load("recipe.py:other", "simclr", "image")
    with pytest.raises(ValueError, match=r"gave a int"):
        recipes.load("recipe.py:wrong", "simclr", "image")
    with pytest.raises(FileNotFoundError, match=r"there is no --views file"):
        nearfar.fit(str(photos), views="none.py:upright", out="other")
    with pytest.raises(ValueError, match=r"'tables'.*'image'"):
        recipes.load("tables", "simclr", "image")
