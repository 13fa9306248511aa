from __future__ import annotations

import dataclasses
import json
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import nearfar
from nearfar import looks
from nearfar.cli import main
from nearfar.export.encoder import load_encoder
from nearfar.files import replace_json
from nearfar.modalities.image.encoder import image_encoder
from nearfar.modalities.image.samples import open_images
from nearfar.training.checkpoints import read
from nearfar.training.directory import read_config, read_environment, write_config
from tests.tiny import SETTINGS, tiny_images
from tests.training.test_checkpoints import damage


def quiet(text: str) -> None:
    pass


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> nearfar.Run:
    data = (tiny_images(), np.arange(48) % 4)
    out = tmp_path_factory.mktemp("runs") / "run"
    return nearfar.fit(data, "simclr", out=out, say=lambda text: None, dim=32, **SETTINGS)


@pytest.fixture
def copy(trained: nearfar.Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained.path, tmp_path / "run"))


def test_what_it_began_with_leaves_the_random_numbers_of_the_caller_alone(trained: nearfar.Run) -> None:
    torch.manual_seed(7)
    usual = torch.rand(3)
    torch.manual_seed(7)
    trained.beginnings()
    assert torch.equal(torch.rand(3), usual)


def test_fit_gives_a_run_with_all_that_was_asked_for(trained: nearfar.Run) -> None:
    assert trained.config["method"] == "simclr"
    assert trained.config["data"] == "tuple in memory"
    assert trained.config["arguments"]["dim"] == 32
    assert trained.settings.epochs == 2
    assert trained.settings.crops == (2, 0)


def test_the_encoder_is_that_of_the_last_checkpoint_or_the_best(trained: nearfar.Run) -> None:
    folder = trained.path / "checkpoints"
    for which, file in (("last", "step-000000006.pt"), ("best", "best.pt")):
        state = read(folder / file)["method"]
        weights = nearfar.load(trained.path, which).encoder.state_dict()
        assert weights
        assert all(torch.equal(value, state[f"encoder.{key}"]) for key, value in weights.items())


def test_what_training_saw_of_the_labels_is_said(trained: nearfar.Run, tmp_path: Path) -> None:
    """Labels were there but SimCLR may leave them; SupCon learned from them; where there were none it is said so."""
    assert trained.seen_how == ""
    data = (tiny_images(24), np.arange(24) % 4)
    for method, given, expected in (
        ("supcon", data, " with their labels"),
        ("simclr", data[0], " without their labels"),
    ):
        run = nearfar.fit(given, method, out=tmp_path / method, say=lambda text: None, **SETTINGS | {"batch": 8})
        assert run.seen_how == expected
        assert f"24 tested samples were in pre-training{expected}:" in run.evaluate(data)["note"]


def test_settings_of_another_version_are_named(copy: Path) -> None:
    config = read_config(copy)
    write_config(copy, config | {"settings": config["settings"] | {"start": "run"}})
    with pytest.raises(ValueError, match=r"config.yaml' has settings that this version does not know: start\."):
        nearfar.load(copy)
    write_config(copy, config | {"made": config["made"] | {"encoder": {"kind": "image"}}})
    with pytest.raises(ValueError, match="spec of an image encoder has the keys"):
        nearfar.load(copy).untrained()
    write_config(copy, config | {"made": {}})
    with pytest.raises(ValueError, match=r"has no 'made.encoder' as this version writes it"):
        nearfar.load(copy)


def test_weights_of_another_method_are_refused(copy: Path) -> None:
    config = read_config(copy)
    (copy / "encoder.safetensors").unlink()
    for changed in ({"method": "moco"}, {"arguments": config["arguments"] | {"width": 3}}):
        write_config(copy, config | changed)
        with pytest.raises(ValueError, match="of another run"):
            _ = nearfar.load(copy).method
    made = config["made"] | {
        "encoder": config["made"]["encoder"] | {"channels": 3, "mean": [0.5] * 3, "std": [0.5] * 3}
    }
    write_config(copy, config | {"made": made})
    with pytest.raises(ValueError, match="of another run"):
        _ = nearfar.load(copy).encoder


@pytest.mark.parametrize("name", ["encoder.safetensors", "encoder.json", "encoder.py"])
def test_damaged_exports_are_written_again_from_the_checkpoint(
    copy: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = {path.name: path.read_bytes() for path in copy.glob("encoder.*")}
    content = bytearray(whole[name])
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    if name != "encoder.py":
        with pytest.raises(ValueError, match=rf"{name}.*nearfar export {copy}"):
            _ = nearfar.load(copy).encoder
        with pytest.raises(ValueError, match=r"damaged|checksum"):
            runpy.run_path(str(copy / "encoder.py")) if name != "encoder.json" else load_encoder(copy)
    assert main(["export", str(copy)]) == 0
    assert name in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in copy.glob("encoder.*")} == whole
    for path in copy.glob("checkpoints/*.pt"):
        damage(path, "one byte")
    (copy / name).write_bytes(content)
    assert main(["export", str(copy)]) == 2
    assert "--resume" in capsys.readouterr().err


def test_a_samples_file_that_is_damaged_is_written_again_by_resuming(tmp_path: Path) -> None:
    run = nearfar.fit(tiny_images(), out=tmp_path / "run", say=quiet, **SETTINGS)
    path = run.path / "samples.parquet"
    whole = path.read_bytes()
    damage(path, "one byte")
    with pytest.raises(ValueError, match=r"samples\.parquet.*--resume"):
        run.seen(run.open(tiny_images(4)))
    said: list[str] = []
    nearfar.fit(tiny_images(), out=run.path, resume=True, say=said.append, **SETTINGS)
    assert any("samples.parquet" in text for text in said)
    assert path.read_bytes() == whole
    (run.path / "environment.json").unlink()
    nearfar.fit(tiny_images(), out=run.path, resume=True, say=quiet, **SETTINGS)
    assert read_environment(run.path)["finished"]


def test_the_method_comes_back_with_its_heads(trained: nearfar.Run) -> None:
    state = read(trained.path / "checkpoints" / "step-000000006.pt")["method"]
    again = trained.method.state_dict()
    assert list(again) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in again.items())
    assert not trained.method.training
    best = nearfar.load(trained.path, "best").method.state_dict()
    assert torch.equal(
        best["projector.0.weight"], read(trained.path / "checkpoints/best.pt")["method"]["projector.0.weight"]
    )


def test_before_the_end_the_newest_sound_checkpoint_serves(copy: Path) -> None:
    (copy / "encoder.safetensors").unlink()
    newest, before = (copy / "checkpoints" / f"step-00000000{step}.pt" for step in (6, 3))
    x = torch.rand(2, 1, 16, 16)
    with torch.no_grad():
        last = nearfar.load(copy).encoder(x)
        newest.unlink()
        assert not torch.equal(nearfar.load(copy).encoder(x), last)
        damage(before, "one byte")
        with pytest.raises(ValueError, match=r"is damaged.*--resume"):
            _ = nearfar.load(copy).encoder
    before.unlink()
    with pytest.raises(FileNotFoundError, match="no checkpoint: train on with --resume"):
        _ = nearfar.load(copy).encoder


def test_a_run_without_a_best_checkpoint_says_so(copy: Path) -> None:
    (copy / "checkpoints" / "best.pt").unlink()
    with pytest.raises(FileNotFoundError, match="no best checkpoint: choosing one takes labels"):
        _ = nearfar.load(copy, "best").encoder


def test_embed_is_the_encoder_on_every_sample_in_order(trained: nearfar.Run) -> None:
    array = tiny_images(10)
    with torch.no_grad():
        slow = torch.cat([trained.encoder(torch.from_numpy(p)[None, None] / 255) for p in array])
    torch.testing.assert_close(trained.embed(array), slow, rtol=1e-4, atol=1e-5)
    assert trained.embed(array).shape == (10, trained.encoder.dim)


def test_maps_are_those_of_the_encoder_on_every_sample_in_order(trained: nearfar.Run) -> None:
    array, encoder = tiny_images()[:10], trained.encoder
    (view,) = trained.kind.plain(encoder)(torch.from_numpy(array)[:, None], torch.ones(10))
    with torch.no_grad():
        row, last = encoder.with_map(view)
        every = encoder.maps(view)
    for depth in (-1, 0, 2):
        got = trained.maps(array, depth=depth)
        assert (got.dtype, got.shape) == (torch.float32, (10, *trained.map_shape(depth)))
        torch.testing.assert_close(got, every[depth], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(last, every[-1])
    torch.testing.assert_close(row, trained.embed(array), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.cat(list(trained.each_map(trained.open(array)))), trained.maps(array))
    with pytest.raises(ValueError, match=r"depth 4 .* 4 maps"):
        trained.maps("nowhere", depth=4)


def test_the_untrained_encoder_is_the_one_that_training_began_with(trained: nearfar.Run) -> None:
    spec = trained.config["made"]["encoder"]
    torch.manual_seed(trained.settings.seed)
    first = image_encoder("conv4", channels=1, size=16, mean=spec["mean"], std=spec["std"]).state_dict()
    for _ in range(2):
        state = trained.untrained().state_dict()
        assert all(torch.equal(state[key], first[key]) for key in first)


def test_samples_are_known_again_by_their_pixels(trained: nearfar.Run) -> None:
    array = tiny_images()
    array[5] ^= 1
    seen = trained.seen(open_images(array[::-1].copy()))
    assert seen.tolist() == [i != 42 for i in range(48)]


@pytest.mark.parametrize("make", [False, True])
def test_what_is_no_run(tmp_path: Path, make: bool) -> None:
    path = tmp_path / "run"
    if make:
        path.mkdir()
    with pytest.raises(FileNotFoundError, match=r"is not a run directory: it has no config\.yaml"):
        nearfar.load(path)


def test_fit_refuses_what_nobody_knows(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="did you mean epochs"):
        nearfar.fit(tiny_images(), epoch=3, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy, open_images])
def test_data_in_memory_of_every_kind(kind: Callable[[np.ndarray], Any], tmp_path: Path) -> None:
    data = kind(tiny_images(16))
    run = nearfar.fit(data, out=tmp_path / "run", say=lambda text: None, **SETTINGS | {"epochs": 1})
    assert run.embed(data).shape == (16, run.encoder.dim)
    assert run.config["data"].endswith("in memory")


def test_export_goes_where_it_is_told(copy: Path, tmp_path: Path) -> None:
    done = nearfar.load(copy).export(tmp_path / "elsewhere")
    assert done.folder == tmp_path / "elsewhere"
    assert sorted(path.name for path in done.folder.iterdir()) == ["encoder.json", "encoder.py", "encoder.safetensors"]


def test_other_data_can_be_tested(trained: nearfar.Run) -> None:
    names = np.array(["slash", "pipe", "dash", "back"])
    learn, test = (tiny_images(48), names[np.arange(48) % 4]), (tiny_images(72)[48:], names[np.arange(48, 72) % 4])
    both = trained.evaluate(learn, test=test)
    assert "on the test split of 24 samples" in both["note"]
    # Classes are matched by name: the test data know two of the four, so their own numbers are others.
    few = np.isin(test[1], ["slash", "back"])
    some = trained.evaluate(learn, test=(test[0][few], test[1][few]))
    per_class = {row["name"]: row["values"] for row in both["per_class"]["rows"]}
    for row in some["per_class"]["rows"]:
        assert row["values"]["kNN (%)"] == per_class[row["name"]]["kNN (%)"]
    assert len(some["per_class"]["rows"]) == 2
    with pytest.raises(ValueError, match="none of the test data has a label: give --labels, and for --test data"):
        trained.evaluate(learn, test=test[0])


def test_a_look_finds_copies_and_outliers_and_the_report_shows_what_was_confused(copy: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (48, 16, 16), dtype=np.uint8)
    array[40] = array[7]
    run = nearfar.load(copy)
    looks.explore(run, (array, np.arange(48) % 4))
    found = {name: json.loads((copy / f"results/{name}.json").read_text()) for name in ("copies", "outliers")}
    assert [[s["name"] for s in copies["samples"]] for copies in found["copies"]["sets"]] == [["7", "40"]]
    assert found["copies"]["sets"][0]["labels_differ"]
    mean = [sample["similarity"] for sample in found["outliers"]["samples"]]
    assert mean == sorted(mean)
    table = run.evaluate((array, np.array(["slash", "pipe", "dash", "back"])[np.arange(48) % 4]))
    assert table["protocol"]["data"] == "tuple in memory"
    assert table["confusion"]["classes"] == ["back", "dash", "pipe", "slash"]
    assert sum(n for *_, n in table["confusion"]["counts"]) == 48
    page = run.report().read_text(encoding="utf-8")
    for part in ("copies", "outliers", "confusion", "classes"):
        assert f'<section id="{part}">' in page


@pytest.mark.parametrize("white", [16 * 255, "measured"])
def test_images_of_sixteen_bits_are_scaled_for_use_as_for_training(tmp_path: Path, white: Any) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for i, image in enumerate(tiny_images(24)):
        Image.fromarray(image.astype(np.uint16) * 16).save(folder / f"{i:02}.png")
    data, flags = (open_images(folder, white=white), {}) if white == "measured" else (str(folder), {"white": white})
    run = nearfar.fit(data, out=tmp_path / "run", say=lambda text: None, **SETTINGS | flags)
    (folder / "23.png").unlink()
    used = run.open(str(folder))
    scale = 255 / tiny_images(24).max() if white == "measured" else 1
    wanted = np.round(tiny_images(24)[:23] * scale)
    assert np.abs(used.pixels(torch.arange(23))[:, 0].numpy() - wanted).max() <= (white == "measured")
    assert run.seen(used).all()


def test_evaluate_knows_whether_tested_samples_were_trained_on(copy: Path) -> None:
    names, run = np.array(["slash", "pipe", "dash", "back"]), nearfar.load(copy)
    known, new = ((tiny_images(72)[i:j], names[np.arange(j - i) % 4]) for i, j in ((0, 48), (48, 72)))
    mixed = np.concatenate([new[0], known[0][:4]]), np.concatenate([new[1], known[1][:4]])
    for learned, tested, seen in ((known, new, False), (new, known, True), (known, mixed, True)):
        protocol = run.evaluate(learned, test=tested)["protocol"]
        assert {protocol[name]["seen_in_training"] for name in ("knn", "linear")} == {seen}


def test_few_labels_and_few_groups_make_fewer_folds_and_this_is_said(trained: nearfar.Run) -> None:
    images, classes = tiny_images(12), [i % 4 for i in range(12)]
    heard: list[str] = []
    table = trained.evaluate((images, classes), say=heard.append)
    assert "3 stratified folds of 12 samples" in table["note"]
    assert any("3 folds instead of 5" in text for text in heard)
    samples = open_images((images, classes))
    grouped = dataclasses.replace(samples, group=torch.arange(12) // 4)
    assert "3 stratified folds" in trained.evaluate(grouped)["note"]
    with pytest.raises(ValueError, match="12 of 12 tested images are of classes that none learned from has"):
        trained.evaluate(dataclasses.replace(samples, group=samples.label))
    with pytest.raises(ValueError, match=r"the largest class has 1, .*Label two or more"):
        trained.evaluate((images[:4], classes[:4]))
    with pytest.raises(ValueError, match="of the split test, which are never learned from"):
        trained.evaluate(dataclasses.replace(samples, split=["test"] * 12))


def test_images_in_memory_may_be_opened_without_their_labels(trained: nearfar.Run) -> None:
    pair = (tiny_images(12), [i % 4 for i in range(12)])
    opened = open_images(pair)
    for data in (pair, opened):
        assert len(trained.open(data).classes) == 4
        assert trained.open(data, labels="none").classes == []
        assert trained.open(data, labels=["a", "b"] * 6).classes == ["a", "b"]


def test_a_run_says_in_one_line_what_it_is(trained: nearfar.Run, copy: Path) -> None:
    steps = trained.config["made"]["steps"]
    assert repr(trained) == f"<Run {str(trained.path)!r}: simclr on {trained.config['data']}, {steps} steps, finished>"
    environment = read_environment(copy)
    replace_json(copy / "environment.json", environment | {"finished": False}, indent=1)
    assert f"{steps} of {steps} steps, stopped" in repr(nearfar.load(copy))
