"""A user's own module as the encoder of a run, and a run whose encoder has towers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import nearfar
from nearfar import looks
from nearfar.cli import main
from nearfar.export.encoder import export_encoder, load_encoder
from nearfar.files import replace_json
from nearfar.modalities.image.encoder import image_encoder
from nearfar.nn.towers import Towers
from nearfar.training.directory import read_config, read_environment, write_config
from tests.tiny import array_file, tiny_images

FLAGS: dict[str, Any] = {"epochs": 2, "batch": 16, "views": "drawing", "device": "cpu", "dim": 8}


class Net(nn.Module):
    """N x 1 x 16 x 16 -> N x 6."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.dim = 6
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(256, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 6))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Rows(nn.Linear):
    """N x 3 -> N x 5."""

    dim = 5

    def __init__(self) -> None:
        super().__init__(3, 5)


def quiet(text: str) -> None:
    pass


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[nearfar.Run, Net]:
    net = Net(5)
    out = tmp_path_factory.mktemp("own") / "run"
    return nearfar.fit((tiny_images(), np.arange(48) % 4), encoder=net, out=out, say=quiet, **FLAGS), net


def equal(a: nn.Module, b: nn.Module) -> bool:
    mine, theirs = a.state_dict(), b.state_dict()
    return list(mine) == list(theirs) and all(torch.equal(value, theirs[key]) for key, value in mine.items())


def test_a_copy_of_the_module_is_trained(trained: tuple[nearfar.Run, Net]) -> None:
    run, net = trained
    assert equal(net, Net(5))
    assert not equal(run.encoder.network(), net)
    assert equal(run.untrained().network(), net)
    assert equal(run.method.encoder, run.encoder)
    assert run.config["encoder"] == run.settings.encoder == "Net"
    assert run.encoder.spec == {"kind": "image", "name": "Net", "own": True, "channels": 1, "size": 16}


def test_a_classifier_is_refused_before_any_work(trained: tuple[nearfar.Run, Net], tmp_path: Path) -> None:
    data = (tiny_images(), np.arange(48) % 4)
    with pytest.raises(ValueError, match="encoder of your own, Net"):
        nearfar.finetune(trained[0], data, out=tmp_path / "classifier", say=quiet)
    assert not (tmp_path / "classifier").exists()


def test_a_run_needs_the_module_again(trained: tuple[nearfar.Run, Net]) -> None:
    run, _ = trained
    with pytest.raises(ValueError, match=r"load\(path, encoder=Net\(\)\)"):
        _ = nearfar.load(run.path).encoder
    other = nearfar.load(run.path, encoder=Net(7))
    assert equal(other.encoder, run.encoder)
    assert equal(other.untrained(), run.untrained())
    torch.testing.assert_close(other.embed(tiny_images(10)), run.embed(tiny_images(10)))
    best = nearfar.load(run.path, "best", encoder=Net(7)).embed(tiny_images(10))
    assert best.shape == (10, 6)


def test_all_that_one_does_with_a_run(trained: tuple[nearfar.Run, Net], tmp_path: Path) -> None:
    run, _ = trained
    by_chance = np.random.default_rng(0).integers(0, 4, 60)
    table = run.evaluate((tiny_images(60), by_chance))
    values = {row["name"]: row["values"]["kNN (%)"]["value"] for row in table["rows"]}
    assert list(values) == ["raw pixels", "untrained encoder", "trained encoder"]
    assert values["untrained encoder"] != values["trained encoder"]
    report = run.export(tmp_path)
    assert (report.loader, report.difference, report.dim) == ("", None, 6)
    assert equal(load_encoder(tmp_path, network=Net(1)), run.encoder)
    looks.explore(run, tiny_images(20))
    assert "Net" in run.report().read_text(encoding="utf-8")


def test_it_goes_on_where_it_stopped_whatever_the_module_holds(tmp_path: Path) -> None:
    data = array_file(tmp_path / "data.npz")
    whole = nearfar.fit(str(data), encoder=Net(5), out=tmp_path / "whole", say=quiet, **FLAGS)
    part = Path(shutil.copytree(whole.path, tmp_path / "part"))
    (part / "checkpoints" / "step-000000006.pt").unlink()
    replace_json(part / "environment.json", read_environment(part) | {"finished": False})
    again = nearfar.fit(str(data), encoder=Net(9), out=part, resume=True, say=quiet, **FLAGS)
    assert equal(again.encoder, whole.encoder)
    assert equal(again.untrained().network(), Net(5))


def test_an_encoder_of_ours_keeps_its_weights_and_needs_no_module(tmp_path: Path) -> None:
    encoder = image_encoder("conv4", channels=1, size=16)
    run = nearfar.fit(tiny_images(), encoder=encoder, out=tmp_path / "run", say=quiet, **FLAGS)
    again = nearfar.load(run.path)
    assert equal(again.untrained(), encoder)
    assert again.encoder.spec == encoder.spec
    assert again.settings.encoder == "conv4"
    nearfar.finetune(again, (tiny_images(), np.arange(48) % 4), out=tmp_path / "classifier", say=quiet)
    assert equal(nearfar.load(tmp_path / "classifier").untrained(), encoder)
    with pytest.raises(ValueError, match="'conv4' is built from its name"):
        _ = nearfar.load(run.path, encoder=Net(5)).encoder


def test_rows_of_a_table_are_taken_too(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).normal(size=(40, 3))
    table = {name: numbers[:, i].tolist() for i, name in enumerate("abc")}
    flags: dict[str, Any] = {"epochs": 1, "batch": 16, "dim": 4, "device": "cpu"}
    run = nearfar.fit(table, encoder=Rows(), out=tmp_path / "run", say=quiet, **flags)
    features = nearfar.load(run.path, encoder=Rows()).embed(table)
    scaled = torch.tensor((numbers - numbers.mean(0)) / numbers.std(0), dtype=torch.float32)
    torch.testing.assert_close(features, run.encoder(scaled).detach(), rtol=0.05, atol=0.05)


def test_what_is_no_encoder_leaves_no_run(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="Flatten does not tell how many numbers"):
        nearfar.fit(tiny_images(), encoder=nn.Flatten(), out=tmp_path / "run", say=quiet, **FLAGS)
    narrow = Net(0)
    narrow.dim = 5
    for net, changed, message in (
        (narrow, {}, r"Net gives \(2, 6\) for 2 samples, and its dim says \(2, 5\)"),
        (Net(0), {"size": 56}, r"Net cannot take the views of these samples \(channels 1, size 56\)"),
        (Net(0), {"views": "swav", "crops": (1, 1)}, "'Net' cannot take views of 7 px"),
    ):
        flags: dict[str, Any] = {**FLAGS, **changed}
        with pytest.raises(ValueError, match=message):
            nearfar.fit(tiny_images(), encoder=net, out=tmp_path / "run", say=quiet, **flags)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def two(trained: tuple[nearfar.Run, Net], tmp_path: Path) -> tuple[Path, Towers]:
    """A run as pairs of kinds will make it: the towers "a" and "b"."""
    folder = Path(shutil.copytree(trained[0].path, tmp_path / "two"))
    towers = Towers({name: image_encoder("conv4", channels=1, size=16) for name in "ab"}).eval()
    export_encoder(towers, folder)
    (folder / "untrained.safetensors").unlink()
    config = read_config(folder)
    write_config(folder, config | {"made": config["made"] | {"encoder": towers.spec}})
    return folder, towers


def test_a_tower_of_a_run_is_used_by_name(two: tuple[Path, Towers], tmp_path: Path) -> None:
    folder, towers = two
    run = nearfar.load(folder, tower="b")
    assert equal(run.encoder, towers.tower("b"))
    assert equal(nearfar.load(folder).encoder, towers)
    torch.manual_seed(run.settings.seed)
    first = Towers({name: image_encoder("conv4", channels=1, size=16) for name in "ab"})
    assert equal(run.untrained(), first.tower("b"))
    data = array_file(tmp_path / "data.npz", 10)
    assert main(["embed", str(folder), str(data), "--tower", "b", "--out", str(tmp_path / "b.npz")]) == 0
    with np.load(tmp_path / "b.npz") as held, torch.no_grad():
        wanted = towers.tower("b")(torch.from_numpy(tiny_images(10))[:, None] / 255)
        np.testing.assert_allclose(held["features"], wanted.numpy(), rtol=1e-4, atol=1e-5)
    assert main(["export", str(folder), "--tower", "b", "--out", str(tmp_path / "b")]) == 0
    assert equal(load_encoder(tmp_path / "b"), towers.tower("b"))


def test_a_tower_that_is_not_there_is_refused(two: tuple[Path, Towers], trained: tuple[nearfar.Run, Net]) -> None:
    with pytest.raises(ValueError, match="no tower 'c'; its towers are a, b"):
        nearfar.load(two[0], tower="c")
    with pytest.raises(ValueError, match="its encoder has no towers"):
        nearfar.load(trained[0].path, tower="a")
