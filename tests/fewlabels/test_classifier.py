"""A classifier's directory: what is written comes back, what is damaged is told, and what it says of new samples."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import nearfar
from nearfar.data.digests import digests
from nearfar.fewlabels.classifier import Classifier, is_classifier, new_directory
from nearfar.fewlabels.finetuning import finetune
from nearfar.run import Run
from tests.fewlabels.test_finetuning import samples
from tests.tiny import SETTINGS, folder, tiny_images

QUIET: dict[str, Any] = {"say": lambda text: None}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "run"
    return nearfar.fit(tiny_images(), "simclr", out=out, dim=32, **QUIET, **SETTINGS)


@pytest.fixture(scope="module")
def made(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return finetune(run, samples(), layer=1, out=tmp_path_factory.mktemp("made") / "c", **QUIET)


@pytest.fixture
def copy(made: Classifier, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made.path, tmp_path / "c"))


def test_what_it_says_is_the_softmax_of_its_logits_over_the_temperature(made: Classifier) -> None:
    data = samples(20)
    found = made.predict(data)
    (view,) = made.run.kind.plain(made.run.encoder)(*data.fetch(torch.arange(20)))
    with torch.no_grad():
        logits = made.layers(made.run.encoder(view))
    assert made.temperature is not None
    torch.testing.assert_close(found.probabilities, (logits / made.temperature).softmax(1), atol=1e-5, rtol=1e-4)
    assert found.label == [made.classes[int(c)] for c in logits.argmax(1)]
    torch.testing.assert_close(found.probability, found.probabilities.amax(1))
    assert found.names == data.names
    assert found.calibrated


def test_evidence_is_the_nearest_labeled_samples(made: Classifier) -> None:
    data = samples()
    found = made.predict(data, near=4)
    x = torch.nn.functional.normalize(made.features(data), dim=1)
    bank = torch.nn.functional.normalize(made.evidence.features, dim=1)
    for row in (0, 5, 50):
        order = (x[row] @ bank.T).argsort(descending=True, stable=True)[:4].tolist()
        assert [name for name, _, _ in found.near[row]] == [made.evidence.names[i] for i in order]
        assert [label for _, label, _ in found.near[row]] == [made.classes[int(made.evidence.label[i])] for i in order]
    own = data.names.index(made.evidence.names[0])
    assert found.near[own][0][0] == data.names[own]  # a labeled sample is nearest to itself
    assert found.near[own][0][2] == pytest.approx(1, abs=1e-5)
    assert made.evidence.digests == digests(data.subset([int(name) for name in made.evidence.names]))
    assert all(near == [] for near in made.predict(data, near=0).near)
    assert all(len(near) == 48 for near in made.predict(data, near=1000).near)


def test_predictions_as_a_table(made: Classifier, tmp_path: Path) -> None:
    found = made.predict(samples(8), near=2)
    rows = list(csv.DictReader(found.write(tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["path"] for row in rows] == [str(i) for i in range(8)]
    assert [row["label"] for row in rows] == found.label
    assert all(row["calibrated"] == "yes" for row in rows)
    assert float(rows[3]["probability"]) == pytest.approx(float(found.probability[3]), abs=1e-4)
    assert (rows[3]["near_1"], rows[3]["near_1_label"]) == found.near[3][0][:2]
    assert list(rows[0]) == [
        *("path", "label", "probability", "calibrated"),
        *("near_1", "near_1_label", "near_1_similarity", "near_2", "near_2_label", "near_2_similarity"),
    ]


def test_files_are_named_as_they_were_given(made: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = folder(tmp_path / "photos", 6)
    monkeypatch.chdir(tmp_path)
    whole = made.predict("photos")
    for given in (["photos/004.png", str(photos / "001.png")], ("photos/004.png", str(photos / "001.png"))):
        found = made.predict(given)
        assert found.names == list(given)
        torch.testing.assert_close(found.probabilities, whole.probabilities[[4, 1]])
    assert made.predict(Path("photos/004.png")).names == ["photos/004.png"]
    pages = [Image.open(photos / name) for name in ("000.png", "002.png")]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    paged = made.predict(["photos/004.png", "pages.tif"])
    assert paged.names == ["photos/004.png", "pages.tif#1", "pages.tif#2"]
    torch.testing.assert_close(paged.probabilities, whole.probabilities[[4, 0, 2]])
    (photos / "001.png").write_bytes(b"no image")
    opened = made.open(["photos/004.png", str(photos / "001.png")])
    assert opened.names == ["photos/004.png"]
    assert opened.skipped[0][0] == str(photos / "001.png")
    Image.new("RGB", (9, 9)).save(photos / "color.png")
    with pytest.raises(ValueError, match=r"trained on images of 1 channel\(s\)"):
        made.predict("photos/color.png")


def test_it_is_read_back_as_it_was_written(made: Classifier) -> None:
    other = Classifier(made.path)
    a, b = made.predict(samples(12)), other.predict(samples(12))
    assert torch.equal(a.probabilities, b.probabilities)
    assert (a.names, a.label, a.near) == (b.names, b.label, b.near)
    assert other.facts["layer"] == 1


def test_a_run_without_a_classifier_is_told_the_command(run: Run, tmp_path: Path) -> None:
    assert not is_classifier(run.path)
    with pytest.raises(FileNotFoundError, match=f"nearfar finetune {run.path} DATA --labels labels.csv"):
        Classifier(run.path)
    with pytest.raises(FileNotFoundError, match="is no classifier's directory"):
        Classifier(tmp_path)


@pytest.mark.parametrize("how", ["weights", "cut", "format", "missing", "key"])
def test_a_damaged_classifier_is_told(copy: Path, how: str) -> None:
    text, weights = copy / "classifier.json", copy / "classifier.safetensors"
    held = json.loads(text.read_text())
    match how:
        case "weights":
            content = bytearray(weights.read_bytes())
            content[-1] ^= 1
            weights.write_bytes(content)
        case "cut":
            text.write_text(text.read_text()[:100])
        case "format":
            text.write_text(json.dumps(held | {"format": 99}))
        case "missing":
            weights.unlink()
        case _:
            text.write_text(json.dumps({name: value for name, value in held.items() if name != "sha256"}))
    with pytest.raises(ValueError, match=r"cannot be read .* make it again"):
        Classifier(copy)


@pytest.mark.parametrize(("file", "stays"), [("metrics.jsonl", False), ("config.yaml", True)])
def test_a_new_directory_goes_if_nothing_came_of_it(tmp_path: Path, file: str, stays: bool) -> None:
    def fails() -> None:
        with new_directory(tmp_path / "new"):
            (tmp_path / "new" / file).write_text("{}")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert (tmp_path / "new").exists() == stays
