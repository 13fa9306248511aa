from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from nearfar.modalities.image.encoder import image_encoder
from nearfar.studies.helps import LINEAR, SCRATCH, SHELF, TUNED, UNTRAINED, Ask, helps, judged
from tests.tiny import tiny_images

FLAGS = {"encoder": "conv4", "batch": 16, "device": "cpu"}


@pytest.fixture
def data(tmp_path: Path) -> str:
    path = tmp_path / "images.npz"
    np.savez(path, images=tiny_images(), labels=np.arange(48) % 4)
    return str(path)


def accuracies(gap: float, noise: float = 1.0) -> dict[str, dict[str, list[float]]]:
    """Three draws: the pre-trained encoder is `gap` points better than training from scratch."""
    spread = [-noise, 0.0, noise]
    return {
        SCRATCH: {"1": [30.0, 31.0, 29.0], "5": [50.0, 51.0, 49.0]},
        UNTRAINED: {"1": [20.0, 21.0, 22.0], "5": [30.0, 31.0, 32.0]},
        LINEAR: {
            "1": [30.0 + gap + spread[0], 31.0 + gap + spread[1], 29.0 + gap + spread[2]],
            "5": [50.0 + spread[0], 51.0 + spread[1], 49.0 + spread[2]],
        },
        TUNED: {"1": [10.0, 12.0, 11.0], "5": [10.0, 12.0, 11.0]},
    }


def test_the_better_way_with_is_held_against_the_better_way_without_draw_by_draw() -> None:
    made = judged(accuracies(10))
    assert (made["gains"]["1"]["of"], made["gains"]["1"]["over"]) == (LINEAR, SCRATCH)
    assert judged(accuracies(-25))["gains"]["1"]["of"] == TUNED
    # Three gaps of 9, 10 and 11: 10 -+ 4.303 / sqrt(3).
    assert made["gains"]["1"]["mean"] == pytest.approx(10)
    assert made["gains"]["1"]["low"] == pytest.approx(10 - 4.3027 / 3**0.5, abs=1e-3)


@pytest.mark.parametrize(
    ("gap", "begins"),
    [(10, "Yes: with 1 label a class the better way with"), (-10, "No: with 1 label"), (0, "No difference seen: with")],
)
def test_the_sentence_says_what_the_intervals_say(gap: float, begins: str) -> None:
    said = judged(accuracies(gap))["sentence"]
    assert said.startswith(begins)
    if gap == 10:
        assert said.endswith("No difference is seen with 5 labels a class.")
        assert "+10.0 points, 95 % interval +7.5 to +12.5" in said


def test_it_measures_every_way_and_goes_on_where_it_was(data: str, tmp_path: Path) -> None:
    ask = Ask(data=data, epochs=1, budgets=(1, 2, 40, 50), seeds=2, tuning=1, flags=FLAGS)
    said: list[str] = []
    made = helps(ask, tmp_path / "helps", say=said.append)
    assert made is not None
    assert any("labeled samples are held out" in line for line in said)
    assert set(made["accuracies"]) == {SCRATCH, UNTRAINED, LINEAR, TUNED}
    # Ten samples a class at most: 50 labels of each are those of 40.
    assert list(made["accuracies"][LINEAR]) == ["1", "2", "40"]
    assert all(len(values) == 2 for done in made["accuracies"].values() for values in done.values())
    rows = list(csv.reader((tmp_path / "helps" / "helps.csv").read_text().splitlines()))
    assert [row[0] for row in rows] == ["", SCRATCH, UNTRAINED, LINEAR, TUNED, "gain"]
    assert "Does pre-training help on images.npz?" in (tmp_path / "helps" / "helps.html").read_text(encoding="utf-8")
    kept = tmp_path / "helps" / "helps.json"
    half = json.loads(kept.read_text())
    half["accuracies"][TUNED]["40"].pop()
    kept.write_text(json.dumps(half))
    again = helps(ask, tmp_path / "helps", say=said.append)
    assert again is not None
    assert again["accuracies"] == made["accuracies"]
    with pytest.raises(ValueError, match="holds another answer"):
        helps(Ask(data=data, epochs=2, seeds=2, flags=FLAGS), tmp_path / "helps")


def test_bad_questions(data: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--seeds 1"):
        helps(Ask(data=data, seeds=1), tmp_path / "helps")
    with pytest.raises(ValueError, match="has a label"):
        helps(Ask(data=data, labels="none"), tmp_path / "helps")
    assert not (tmp_path / "helps").exists()


def test_weights_off_the_shelf_are_tried_too(data: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = image_encoder("test_resnet", size=160, small_stem=False).net
    torch.save(net.state_dict(), tmp_path / "shelf.pth")
    asked = {"data": data, "epochs": 1, "budgets": (2,), "seeds": 2, "tuning": 1, "flags": FLAGS}
    weights = str(tmp_path / "shelf.pth")
    made = helps(Ask(**asked, weights=weights, shelf="test_resnet"), tmp_path / "helps", say=lambda text: None)
    assert made is not None
    assert len(made["accuracies"][SHELF]["2"]) == 2
    assert SHELF in (tmp_path / "helps" / "helps.csv").read_text()
    with pytest.raises(ValueError, match="nothing was loaded"):
        helps(Ask(**asked, weights=weights, shelf="test_vit"), tmp_path / "other")
    assert not (tmp_path / "other").exists()
