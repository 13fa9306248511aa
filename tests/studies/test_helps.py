from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import t
from timm import get_pretrained_cfg

from nearfar.evaluation.protocol import packed
from nearfar.fewlabels.rows import Rows
from nearfar.files import read_json, replace_json
from nearfar.modalities import kind as kinds
from nearfar.modalities.image.encoder import image_encoder
from nearfar.modalities.image.samples import open_images
from nearfar.modalities.table.samples import open_table
from nearfar.run import Run
from nearfar.studies.asked import Helps
from nearfar.studies.helps import (
    FURTHER,
    LINEAR,
    SCRATCH,
    SHELF,
    TUNED,
    UNTRAINED,
    Linear,
    PretrainingHelps,
    further_sentence,
    judgement,
    sentence,
    summarize,
)
from tests.modalities.table.test_table import table
from tests.tiny import tiny_images

QUIET: dict[str, Any] = {"say": lambda text: None}


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
    gain = summarize(accuracies(10))["gains"]["1"]
    assert (gain["of"], gain["over"]) == (LINEAR, SCRATCH)
    assert summarize(accuracies(-25))["gains"]["1"]["of"] == TUNED
    # Three gaps of 9, 10 and 11, and the usual spread of 1 with 2 degrees of freedom: a variance of 1 with 4.
    assert gain["mean"] == pytest.approx(10)
    assert gain["low"] == pytest.approx(10 - t.ppf(0.975, 4) / 3**0.5, abs=1e-3)


@pytest.mark.parametrize(
    ("gap", "noise", "found", "begins"),
    [
        (10, 1.0, {"ahead": ["1"], "alike": ["5"]}, "Yes:"),
        (-10, 1.0, {"behind": ["1"], "alike": ["5"]}, "No:"),
        (0, 1.0, {"alike": ["1", "5"]}, "No difference seen:"),
        (10, 9.0, {"open": ["1", "5"]}, "Not settled:"),
    ],
)
def test_the_sentence_says_what_the_intervals_say(
    gap: float, noise: float, found: dict[str, list[str]], begins: str
) -> None:
    summary = summarize(accuracies(gap, noise))
    assert {said: budgets for said, budgets in judgement(summary).items() if budgets} == found
    assert sentence(summary).startswith(begins)


def test_the_answers_to_the_tested_samples_are_used() -> None:
    given = accuracies(10)
    right = {
        way: {b: [packed(torch.arange(400) < 4 * value) for value in values] for b, values in of.items()}
        for way, of in given.items()
    }
    alone, known = summarize(given), summarize(given, right)
    for budget in ("1", "5"):
        assert known["gains"][budget]["mean"] == pytest.approx(alone["gains"][budget]["mean"])
    # The draws of one way differ by little, but only 400 samples were tested.
    cells = [made["means"][SCRATCH]["1"] for made in (alone, known)]
    assert cells[1]["high"] - cells[1]["low"] > 1.5 * (cells[0]["high"] - cells[0]["low"])
    in_units = summarize(given, right, torch.arange(400) // 100)
    assert in_units["gains"]["1"]["low"] < known["gains"]["1"]["low"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of timm's test_resnet, as a file."""
    path = tmp_path_factory.mktemp("weights") / "shelf.pth"
    torch.manual_seed(0)
    torch.save(image_encoder("test_resnet", size=160, small_stem=False).net.state_dict(), path)
    return str(path)


def test_it_measures_every_way_and_goes_on_where_it_was(data: str, weights: str, tmp_path: Path) -> None:
    shelf: dict[str, Any] = {"weights": weights, "shelf": "test_resnet"}
    ask = Helps(data=data, epochs=1, budgets=(1, 40, 50), seeds=2, tuning=1, encoder="conv4", batch=16, **shelf)
    study = PretrainingHelps(ask, tmp_path / "helps", **QUIET)
    assert study.answer()
    measured = study.measured["accuracies"]
    assert list(measured) == [SCRATCH, UNTRAINED, LINEAR, TUNED, SHELF]
    # Ten samples a class at most: 50 labels of each are those of 40.
    assert list(measured[LINEAR]) == ["1", "40"]
    assert all(len(values) == 2 for cells in measured.values() for values in cells.values())
    assert study.measured["tested"] == 10  # a stratified fifth of 48, as the labels name no split
    assert study.measured["tested_in_pretraining"] == 0
    told = study.sentences()
    study.measured["tested_in_pretraining"] = 3  # as by a run that has seen them
    assert "3 of the 10 tested samples were in the pre-training" in study.sentences()[len(told)]
    run = Run(tmp_path / "helps" / "pretrained")
    assert run.config["samples"] == 38
    assert run.config["made"]["classes"] == []
    rows = list(csv.reader(study.file("csv").read_text().splitlines()))
    assert [row[0] for row in rows] == ["", SCRATCH, UNTRAINED, LINEAR, TUNED, SHELF, "gain"]
    assert "images.npz" in study.file("html").read_text(encoding="utf-8")
    saved = read_json(study.file("json"), "")
    saved["measured"]["accuracies"][TUNED]["40"].pop()
    saved["measured"]["accuracies"][LINEAR]["40"][0] = 12.5  # what is there is not measured again
    replace_json(study.file("json"), saved)
    again = PretrainingHelps(ask, study.out, **QUIET)
    assert again.answer()
    assert again.measured["accuracies"][TUNED] == measured[TUNED]
    assert again.measured["accuracies"][LINEAR]["40"] == [12.5, measured[LINEAR]["40"][1]]


def test_training_on_from_given_weights_is_held_against_them(data: str, weights: str, tmp_path: Path) -> None:
    images = np.repeat(tiny_images(48)[..., None], 3, axis=3) // np.array([1, 2, 3], dtype=np.uint8)
    np.savez(tmp_path / "color.npz", images=images, labels=np.arange(48) % 4)
    shelf: dict[str, Any] = {"weights": weights, "shelf": "test_resnet", "further": True}
    ask = Helps(data=str(tmp_path / "color.npz"), epochs=1, budgets=(1,), seeds=2, tuning=1, batch=16, **shelf)
    study = PretrainingHelps(ask, tmp_path / "helps", **QUIET)
    assert study.answer()
    assert set(study.measured["accuracies"]) == {SCRATCH, UNTRAINED, LINEAR, TUNED, SHELF, FURTHER}
    run = Run(tmp_path / "helps" / "further")
    assert (run.config["recipe"], run.config["made"]["given"]) == ("continue", weights)
    assert study.sentences()[1].startswith("To train on from the given weights ")
    with pytest.raises(ValueError, match="is for images of 3 channels, and these have 1"):
        PretrainingHelps(dataclasses.replace(ask, data=data), tmp_path / "gray", **QUIET).answer()


@pytest.mark.parametrize(
    ("ours", "said"),
    [((70, 71), "helps: "), ((30, 31), "does not help: take them as they are: "), ((50, 51), "makes no difference")],
)
def test_what_training_on_brought_is_said(ours: tuple[float, float], said: str) -> None:
    given = {name: {"1": [50.0, 51.0]} for name in (SCRATCH, UNTRAINED, LINEAR, TUNED, SHELF)}
    summary = summarize(given | {FURTHER: {"1": list(ours)}})
    assert f"weights {said}" in further_sentence(summary["further"])


def test_bad_questions(data: str, tmp_path: Path) -> None:
    bad: list[dict[str, Any]] = [{"seeds": 1}, {"budgets": ()}, {"budgets": (0, 2)}]
    for values in bad:
        with pytest.raises(ValueError, match=r"--seeds 1|--budgets"):
            Helps(data=data, **values)
    for values, message in (
        ({"labels": "none"}, "has a label"),
        ({"weights": "no.pth", "shelf": "test_resnet"}, r"no\.pth"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            PretrainingHelps(Helps(data=data, encoder="conv4", **values), tmp_path / "helps", **QUIET).answer()
    assert not (tmp_path / "helps").exists()


def test_weights_off_the_shelf(weights: str, tmp_path: Path) -> None:
    images = open_images(tiny_images(4))
    network, plain = kinds.of("image").off_the_shelf("test_resnet", weights, images)
    (view,) = plain(*images.fetch(torch.arange(4)))
    assert view.shape == (4, 1, 160, 160)  # gray, at the network's own size
    with torch.no_grad():
        assert network(view).shape == (4, 96)
    assert isinstance(network, torch.nn.Sequential)
    assert network[1].spec["mean"] == list(get_pretrained_cfg("test_resnet").mean) == [0.5] * 3
    with pytest.raises(ValueError, match="nothing was loaded"):
        kinds.of("image").off_the_shelf("test_vit", weights, images)
    rows = open_table(str(table(tmp_path / "rows.csv")))
    with pytest.raises(ValueError, match="there are none off the shelf for rows"):
        kinds.of("table").off_the_shelf("test_resnet", weights, rows)
    linear = Linear(network, plain)
    assert linear.logits(images, _rows(4), 0).shape == (2, 2)


def _rows(n: int) -> Rows:
    label = torch.arange(n) % 2
    return Rows(learn=torch.arange(2), held=label[:0], test=torch.arange(2, n), label=label, classes=["a", "b"])
