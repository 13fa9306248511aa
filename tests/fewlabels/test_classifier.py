"""What a classifier says of new samples, and what it rests on."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from PIL import Image

from nearfar.data.digests import digests
from nearfar.fewlabels.classifier import Classifier
from tests.fewlabels.conftest import samples
from tests.tiny import folder


def test_what_it_says_is_the_softmax_of_its_logits_over_the_temperature(linear: Classifier) -> None:
    data = samples(20)
    answer = linear.predict(data)
    (view,) = linear.run.kind.plain(linear.run.encoder)(*data.fetch(torch.arange(20)))
    with torch.no_grad():
        logits = linear.layers(linear.run.encoder(view))
    assert linear.temperature is not None
    torch.testing.assert_close(answer.probabilities, (logits / linear.temperature).softmax(1), atol=1e-5, rtol=1e-4)
    assert answer.label == [linear.classes[int(c)] for c in logits.argmax(1)]
    torch.testing.assert_close(answer.probability, answer.probabilities.amax(1))
    assert answer.names == data.names
    assert answer.calibrated


def test_evidence_is_the_nearest_labeled_samples(linear: Classifier) -> None:
    data = samples()
    answer = linear.predict(data, near=4)
    x = torch.nn.functional.normalize(linear.features(data), dim=1)
    bank = torch.nn.functional.normalize(linear.evidence.features, dim=1)
    for row in (0, 5, 50):
        order = (x[row] @ bank.T).argsort(descending=True, stable=True)[:4].tolist()
        assert [name for name, _, _ in answer.near[row]] == [linear.evidence.names[i] for i in order]
        assert [label for _, label, _ in answer.near[row]] == [
            linear.classes[int(linear.evidence.label[i])] for i in order
        ]
    own = data.names.index(linear.evidence.names[0])
    assert answer.near[own][0][0] == data.names[own]  # a labeled sample is nearest to itself
    assert answer.near[own][0][2] == pytest.approx(1, abs=1e-5)
    assert linear.evidence.digests == digests(data.subset([int(name) for name in linear.evidence.names]))
    assert all(near == [] for near in linear.predict(data, near=0).near)
    assert all(len(near) == 48 for near in linear.predict(data, near=1000).near)


def test_predictions_as_a_table(linear: Classifier, tmp_path: Path) -> None:
    answer = linear.predict(samples(8), near=2)
    rows = list(csv.DictReader(answer.write(tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["path"] for row in rows] == [str(i) for i in range(8)]
    assert [row["label"] for row in rows] == answer.label
    assert all(row["calibrated"] == "yes" for row in rows)
    assert float(rows[3]["probability"]) == pytest.approx(float(answer.probability[3]), abs=1e-4)
    assert (rows[3]["near_1"], rows[3]["near_1_label"]) == answer.near[3][0][:2]
    assert list(rows[0]) == [
        *("path", "label", "probability", "calibrated"),
        *("near_1", "near_1_label", "near_1_similarity", "near_2", "near_2_label", "near_2_similarity"),
    ]


def test_files_are_named_as_they_were_given(
    linear: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = folder(tmp_path / "photos", 6)
    monkeypatch.chdir(tmp_path)
    whole = linear.predict("photos")
    for given in (["photos/004.png", str(photos / "001.png")], ("photos/004.png", str(photos / "001.png"))):
        answer = linear.predict(given)
        assert answer.names == list(given)
        torch.testing.assert_close(answer.probabilities, whole.probabilities[[4, 1]])
    assert linear.predict(Path("photos/004.png")).names == ["photos/004.png"]
    pages = [Image.open(photos / name) for name in ("000.png", "002.png")]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    paged = linear.predict(["photos/004.png", "pages.tif"])
    assert paged.names == ["photos/004.png", "pages.tif#1", "pages.tif#2"]
    torch.testing.assert_close(paged.probabilities, whole.probabilities[[4, 0, 2]])
    (photos / "001.png").write_bytes(b"no image")
    opened = linear.open(["photos/004.png", str(photos / "001.png")])
    assert opened.names == ["photos/004.png"]
    assert opened.skipped[0][0] == str(photos / "001.png")
    Image.new("RGB", (9, 9)).save(photos / "color.png")
    assert linear.predict("photos/color.png").names == ["photos/color.png"]
