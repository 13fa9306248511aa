"""A table from file to report: what the engineer does with one."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from nearfar import looks, run
from nearfar.cli import main
from nearfar.modalities import kind as kinds
from nearfar.modalities import recipes
from nearfar.modalities.table.samples import open_table
from nearfar.modalities.table.settings import Facts
from nearfar.training import job as training
from nearfar.training import plan as plans
from nearfar.training.directory import read_config, write_config
from nearfar.training.journal import Journal

SETTINGS = {"epochs": 2, "batch": 16, "encoder": "mlp-16x2", "label_column": "kind", "device": "cpu"}


def table(path: Path, n: int = 80, *, shift: int = 0) -> Path:
    """Cells of three kinds, that differ in two numbers and a word; the last quarter is the test part."""
    random = np.random.default_rng(shift)
    lines = ["split,size,weight,color,noise,kind"]
    for i in range(n):
        kind = i % 3
        size = "" if i % 11 == 0 else f"{10 * kind + random.normal():.3f}"
        color = ("red", "green", "blue")[kind] if random.random() < 0.8 else "gray"
        part = "test" if i >= 3 * n // 4 else "train"
        lines.append(f"{part},{size},{5 - kind + random.normal():.3f},{color},{random.normal():.3f},{'abc'[kind]}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, run.Run]:
    folder = tmp_path_factory.mktemp("tables")
    data = table(folder / "things.csv")
    return data, run.fit(str(data), "simclr", out=folder / "run", say=lambda text: None, **SETTINGS)


def test_it_trains_and_is_evaluated_against_the_raw_columns(trained: tuple[Path, run.Run]) -> None:
    data, opened = trained
    losses = [line["loss"] for line in Journal(opened.path / "metrics.jsonl").read() if "loss" in line]
    assert losses
    assert np.isfinite(losses).all()
    result = opened.evaluate(str(data))
    assert [row["name"] for row in result["rows"]] == ["raw columns", "untrained encoder", "trained encoder"]
    assert result["rows"][0]["values"]["kNN (%)"]["value"] > 60
    assert "No tested sample was in pre-training" in result["note"]
    assert opened.config["made"]["encoder"]["kind"] == "table"
    assert "kind" not in [column["name"] for column in opened.config["made"]["encoder"]["columns"]]


def test_the_map_tells_rows_in_words(trained: tuple[Path, run.Run]) -> None:
    data, opened = trained
    looks.explore(opened, str(data))
    drawn = json.loads((opened.path / "results" / "map.json").read_text(encoding="utf-8"))
    assert drawn["name"][1] == "row 1"
    assert drawn["columns"] == ["size", "weight", "noise", "color"]
    line = data.read_text(encoding="utf-8").splitlines()[2].split(",")
    assert [float(cell) for cell in drawn["cells"][1][:3]] == pytest.approx([float(line[c]) for c in (1, 2, 4)])
    assert drawn["cells"][1][3] == line[3]
    assert drawn["cells"][0][0] == ""
    assert len(drawn["name"]) == 80
    assert opened.report().stat().st_size > 10_000
    assert (opened.path / "views.png").stat().st_size > 1000


@pytest.mark.parametrize(("numbers", "words", "kept"), [(20, 20, (7, 7)), (20, 3, (11, 3)), (2, 30, (2, 12))])
def test_of_many_columns_some_of_each_kind_are_shown(numbers: int, words: int, kept: tuple[int, int]) -> None:
    from nearfar.data.tiles import Cells
    from nearfar.modalities.table.samples import open_table

    columns = {f"n{i}": [1.0, 2.0] for i in range(numbers)} | {f"w{i}": ["a", "b"] for i in range(words)}
    face = kinds.of("table").tiles(open_table(columns)).face
    assert isinstance(face, Cells)
    assert (face.numbers, len(face.columns) - face.numbers) == kept
    assert face.hidden == numbers + words - 14
    assert face.cells(1) == ["2"] * kept[0] + ["b"] * kept[1]


def test_equal_rows_are_copies() -> None:
    from nearfar.modalities.table.samples import open_table

    rows = open_table({"a": [1.0, 2.0, 1.0, 3.0], "b": ["x", "y", "x", "x"]})
    assert kinds.of("table").copies(rows).group.tolist() == [0, -1, 0, -1]


def test_the_export_prepares_and_encodes_without_the_library(trained: tuple[Path, run.Run]) -> None:
    data, opened = trained
    done = opened.export()
    loaded = runpy.run_path(str(done.folder / "encoder.py"))
    lines = [line.split(",") for line in data.read_text(encoding="utf-8").splitlines()]
    cells = {name: [row[i] for row in lines[1:]] for i, name in enumerate(lines[0])}
    words = {name: [value or None for value in values] for name, values in cells.items()}
    for name in ("size", "weight", "noise"):
        words[name] = [None if value is None else float(value) for value in words[name]]
    with torch.no_grad():
        features = loaded["encode"](loaded["prepare"](words))
    torch.testing.assert_close(features, opened.embed(str(data)), rtol=1e-4, atol=1e-5)


def test_resumed_and_two_kinds_kept_apart(trained: tuple[Path, run.Run], tmp_path: Path) -> None:
    data, opened = trained
    plan = plans.make("simclr", str(data), None, SETTINGS)
    assert training.train(plan, opened.path, resume=True, say=lambda text: None)
    with pytest.raises(ValueError, match="--views 'simclr' is none of scarf"):
        run.fit(str(data), "simclr", out=tmp_path / "a", say=lambda text: None, **SETTINGS | {"views": "simclr"})
    with pytest.raises(ValueError, match="'scarf' is none of simclr"):
        run.fit(np.zeros((4, 8, 8), np.uint8), "simclr", out=tmp_path / "b", say=lambda text: None, views="scarf")
    with pytest.raises(ValueError, match=r"no column 'size'.*which the encoder was trained on"):
        opened.embed({"weight": [1.0, 2.0]})


def test_a_run_from_before_numbers_had_forms_goes_on_as_standard(tmp_path: Path) -> None:
    data, out = str(table(tmp_path / "things.csv")), tmp_path / "run"
    before = run.fit(data, "simclr", recipe="paper", out=out, say=lambda text: None, **SETTINGS)
    config = before.config
    assert config["settings"].pop("numbers") == "standard"
    assert all("form" not in column for column in config["made"]["encoder"]["columns"])
    write_config(out, config)
    old = plans.make("simclr", data, "paper", SETTINGS | {"epochs": 3})
    assert training.train(old, out, resume=True, say=lambda text: None)
    assert read_config(out)["settings"]["numbers"] == "standard"
    other = plans.make("simclr", data, "paper", SETTINGS | {"epochs": 4, "numbers": "piecewise"})
    with pytest.raises(ValueError, match="numbers was 'standard' and is 'piecewise'"):
        training.train(other, out, resume=True, say=lambda text: None)


@pytest.mark.parametrize(("rows", "epochs"), [(3, 200), (600, 125), (50_000, 3)])
def test_the_recipe_chosen_by_measurement_goes_by_the_rows(rows: int, epochs: int) -> None:
    chosen = recipes.choose("", "simclr", {"a": [1.0]}, "table")
    recipe = recipes.load(chosen, "simclr", "table", Facts(samples=rows))
    assert recipe.settings.epochs == epochs
    asked = recipes.load(chosen, "simclr", "table", Facts(samples=rows, epochs=7, batch=32))
    assert (asked.settings.epochs, asked.settings.batch, asked.settings.warmup) == (7, 32, 0.7)
    paper = recipes.load(recipes.choose("paper", "simclr", {"a": [1.0]}, "table"), "simclr", "table")
    assert (paper.settings.encoder, paper.method["temperature"]) == ("mlp", 1.0)


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = str(table(tmp_path / "things.csv"))
    words = ["--epochs", "1", "--batch", "16", "--encoder", "mlp-8x2", "--label-column", "kind", "--out", "run"]
    assert main(["train", "moco", data, "--queue", "32", *words]) == 0
    assert "mlp-8x2 on 3 numbers and 1 categories" in capsys.readouterr().out.replace("\n", " ")
    assert main(["evaluate", "run", data]) == 0
    assert "raw columns" in capsys.readouterr().out
    assert main(["embed", "run", data]) == 0
    assert np.load("run/embeddings.npz")["features"].shape == (80, 8)
    assert main(["views", data, "--label-column", "kind"]) == 0
    assert Path("views.png").stat().st_size > 1000


def test_a_method_of_images_refuses_a_table(tmp_path: Path) -> None:
    own = tmp_path / "mine.py"
    own.write_text(
        "from nearfar.methods.simclr import SimCLR\n\n\n"
        'class Mine(SimCLR):\n    """For images."""\n\n    needs_pixels = True\n',
        encoding="utf-8",
    )
    with pytest.raises(ValueError, match="views of rows have none"):
        run.fit(str(table(tmp_path / "t.csv")), str(own), out=tmp_path / "r", say=lambda text: None, **SETTINGS)


def lines(folder: Path, name: str, form: Callable[[int], str], first: int) -> Path:
    random = np.random.default_rng(0)
    x = random.normal(3.0 * (np.arange(48) % 2), 1)
    rows = [f"{x[i]:.3f},{form(i % 2)}" for i in range(first, first + 24)]
    (folder / name).write_text("\n".join(["x,kind", *rows]) + "\n", encoding="utf-8")
    return folder / name


def test_classes_of_a_test_table_are_compared_by_value_and_never_in_silence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    learn = lines(tmp_path, "learn.csv", lambda c: f"{c}.0", 0)
    quiet = {"say": lambda text: None, "probe_every": 0}
    opened = run.fit(str(learn), "simclr", out=tmp_path / "run", **SETTINGS | {"epochs": 1}, **quiet)
    accuracy = {
        spelled: opened.evaluate(
            str(learn), test=str(lines(tmp_path, "test.csv", lambda c, spelled=spelled: f"{c}{spelled}", 24))
        )["rows"]
        for spelled in ("", ".0", "e0")
    }
    assert accuracy[""] == accuracy[".0"] == accuracy["e0"]
    assert accuracy[""][0]["values"]["kNN (%)"]["value"] > 70
    for form, spelled in ((lambda c: f"0{c}", "'01'"), (lambda c: ("no", "yes")[c], "'yes'")):
        test = lines(tmp_path, "test.csv", form, 24)
        assert main(["evaluate", str(tmp_path / "run"), str(learn), "--test", str(test)]) == 2
        said = capsys.readouterr().err
        assert spelled in said
        assert "'1'" in said
    heard: list[str] = []
    partly = lines(tmp_path, "test.csv", lambda c: ("0", "01")[c], 24)
    opened.evaluate(str(learn), test=str(partly), say=heard.append)
    assert any("'01'" in text and "'1'" in text for text in heard)
    assert any("12 of 24 tested rows are of classes that none learned from has" in text for text in heard)


def test_open_rows_take_the_labels_that_are_asked_for(trained: tuple[Path, run.Run]) -> None:
    data, opened = trained
    rows = open_table(data, label_column="kind")
    assert opened.open(rows).classes == ["a", "b", "c"]
    assert opened.open(rows, label_column="kind").classes == ["a", "b", "c"]
    assert opened.open(rows, labels="none").classes == opened.open(str(data), labels="none").classes == []
    assert opened.open(rows, labels=["x", "y"] * 40).classes == ["x", "y"]
    with pytest.raises(ValueError, match=r"'color' was asked for, .* opened with the labels of 'kind'"):
        opened.open(rows, label_column="color")
    plan = plans.make("simclr", rows, None, {"labels": "none"})
    assert not kinds.of("table").samples(rows, plan.settings).classes
    with pytest.raises(ValueError, match="none are known: name their column by --label-column"):
        opened.evaluate(rows, labels="none")
