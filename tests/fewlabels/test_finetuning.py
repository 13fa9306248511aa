"""Which labels are learned from, the classifiers that come of them, and the directory they are kept in."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nearfar
from nearfar.batch import MISSING
from nearfar.evaluation.calibration import nll
from nearfar.evaluation.linear import linear_fit
from nearfar.fewlabels.finetuning import Rows, Tuning, calibrated, finetune, frozen, hold_out, labeled_rows, mild, tune
from nearfar.method import Stage
from nearfar.methods.simclr import SimCLR
from nearfar.modalities.image.samples import Images, open_images
from nearfar.run import Run
from tests.modalities.table.test_table import table
from tests.tiny import SETTINGS, tiny_images

QUIET: dict[str, Any] = {"say": lambda text: None}
QUICK = Tuning(epochs=3, batch=16, lr=1e-3)


def samples(n: int = 96, classes: int = 4, split: Sequence[str] = ("", "test")) -> Images:
    """Bars at four angles, by turns of the given splits."""
    images = open_images((tiny_images(n, classes), [f"angle{i % classes}" for i in range(n)]))
    images.split = [split[i // classes % len(split)] for i in range(n)]
    return images


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "run"
    return nearfar.fit(tiny_images(), "simclr", out=out, dim=32, **QUIET, **SETTINGS)


def features(n: int, classes: int, noise: float = 1.0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(n) % classes
    middle = torch.randn(classes, 8, generator=torch.Generator().manual_seed(1))
    return middle[label] + noise * torch.randn(n, 8, generator=generator), label


def test_rows_by_split() -> None:
    data = samples(40, split=("", "train", "val", "test", "other"))
    data.label[4:6] = MISSING  # two of split train
    rows = labeled_rows(data)
    assert rows.learn.tolist() == [0, 1, 2, 3, 6, 7, *range(20, 28)]
    assert rows.held.tolist() == [*range(8, 12), *range(28, 32)]
    assert rows.test.tolist() == [*range(12, 16), *range(32, 36)]
    assert rows.classes == [0, 1, 2, 3]


def test_so_many_of_each_class_and_more_hold_the_fewer() -> None:
    data = samples(80, split=("train",))
    data.label[data.label == 3] = torch.where(torch.arange(20) < 2, 3, MISSING)  # a class of two
    found = {k: labeled_rows(data, per_class=k).learn for k in (1, 2, 5)}
    for k, rows in found.items():
        assert torch.bincount(data.label[rows]).tolist() == [k, k, k, min(k, 2)]
    assert set(found[1].tolist()) < set(found[2].tolist()) < set(found[5].tolist())
    assert labeled_rows(data, per_class=5, seed=1).learn.tolist() != found[5].tolist()
    assert torch.equal(labeled_rows(data, per_class=5).learn, found[5])


def test_a_share_is_the_same_number_of_each_class() -> None:
    data = samples(80, split=("train",))
    for share, each in ((0.01, 1), (0.1, 2), (0.24, 4), (1.0, 20)):
        assert torch.bincount(data.label[labeled_rows(data, share=share).learn]).tolist() == [each] * 4


@pytest.mark.parametrize(
    ("change", "asked", "told"),
    [
        ({}, {"share": 0.1, "per_class": 2}, "--share 0.1 and --per-class 2 both say how many"),
        ({}, {"share": 1.5}, "a share of 0 to 1"),
        ({}, {"per_class": -1}, "1 or more of each class"),
        ({"split": ["test"] * 8}, {}, "no sample to learn from has a label: give --labels FILE"),
        ({"label": torch.zeros(8, dtype=torch.int64)}, {}, "every label is 'angle0': a classifier needs two classes"),
    ],
)
def test_what_cannot_be_learned_from(change: dict[str, Any], asked: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        labeled_rows(dataclasses.replace(samples(8, split=("",)), **change), **asked)


def test_classes_are_numbered_anew_and_strange_ones_come_behind() -> None:
    rows = Rows(learn=torch.arange(2), held=torch.arange(0), test=torch.arange(0), classes=[1, 4])
    assert rows.number(torch.tensor([1, 4, MISSING, 0, 5])).tolist() == [0, 1, MISSING, 2, 7]
    assert rows.number(torch.tensor([MISSING])).tolist() == [MISSING]


def test_frozen_is_the_linear_classifier_on_all_rows() -> None:
    x, y = features(60, 3)
    layer, temperature, facts = frozen(x, y, seed=3)
    fit = linear_fit(x, y, scale="one", seed=3)
    torch.testing.assert_close(layer(x), fit.scores(x), atol=1e-4, rtol=1e-4)
    assert facts["strength"] == fit.config["strength"]
    assert temperature is not None
    assert "60 labeled rows" in facts["calibration"]


def test_its_temperature_comes_from_rows_that_were_not_learned_from() -> None:
    x, y = features(80, 4, noise=2.0)
    layer, temperature, _ = frozen(x, y)
    new, truth = features(4000, 4, noise=2.0, seed=9)
    own = nll(layer(x).detach(), y)
    assert own < nll(layer(new).detach(), truth)  # it is surer of its own rows than it may be
    assert temperature is not None
    assert nll(layer(new).detach() / temperature, truth) <= nll(layer(new).detach(), truth) + 0.01
    given = frozen(x, y, held=(new, truth))
    torch.testing.assert_close(given[0].weight, layer.weight)
    best = min(nll(layer(new).detach() / t, truth) for t in (given[1] * 0.8, given[1] * 1.25))  # pyright: ignore
    assert nll(layer(new).detach() / given[1], truth) < best  # pyright: ignore


@pytest.mark.parametrize("n", [4, 12])
def test_with_too_few_rows_nothing_is_calibrated(n: int) -> None:
    _, temperature, facts = frozen(*features(n, 4))
    assert temperature is None
    assert facts["calibration"].startswith("not calibrated, as 20 labeled rows to do it by are wanted and there are ")


def test_a_classifier_that_is_always_right_is_not_made_sure_without_end() -> None:
    label = torch.arange(40) % 4
    logits = 0.1 * F.one_hot(label, 4).float()
    temperature, _ = calibrated(logits, label)
    assert temperature is not None
    confidence = (logits / temperature).softmax(1).amax()
    torch.testing.assert_close(float(confidence), 40 / 41, atol=0.01, rtol=0)


def test_rows_of_unknown_classes_do_not_calibrate() -> None:
    logits, label = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3
    more = torch.cat([logits, torch.randn(5, 3)]), torch.cat([label, torch.full((5,), 7)])
    assert calibrated(*more) == calibrated(logits, label)


def test_groups_stay_on_one_side_of_the_folds() -> None:
    x, y = features(60, 3)
    group = torch.arange(60) // 3
    assert frozen(x, y, group=group)[1] is not None
    assert frozen(x, y, group=torch.zeros(60, dtype=torch.int64))[1] is None  # one group cannot be parted


def test_some_labels_are_held_out_of_fine_tuning_where_they_are_many() -> None:
    label, group = torch.arange(120) % 4, torch.full((120,), MISSING)
    rows = Rows(learn=torch.arange(100), held=torch.arange(0), test=torch.arange(100, 120), classes=[0, 1, 2, 3])
    learn, held, said = hold_out(rows, label, group, 0)
    assert said.startswith("20 of 100 labeled rows are held out")
    assert sorted([*learn.tolist(), *held.tolist()]) == list(range(100))
    assert torch.bincount(label[held]).tolist() == [5, 5, 5, 5]
    few = dataclasses.replace(rows, learn=torch.arange(60))
    learn, held, said = hold_out(few, label, group, 0)
    assert torch.equal(learn, few.learn)
    assert not len(held)
    assert "60 labels of 4 classes are too few to hold some out" in said
    named = dataclasses.replace(few, held=torch.arange(60, 64))
    assert hold_out(named, label, group, 0)[1].tolist() == [60, 61, 62, 63]


def test_the_new_layer_begins_at_zero_and_the_best_look_is_kept(trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    data = samples(48, split=("",))
    learn, held = data.subset(range(32)), data.subset(range(32, 48))
    watched: list[dict[str, float]] = []
    network = Stage(trained.untrained(), dim=trained.encoder.dim)
    method, facts = tune(
        network,
        trained,
        learn,
        held,
        classes=4,
        tuning=Tuning(epochs=8, batch=16, lr=2e-3),
        watch=lambda step, steps, numbers: watched.append(numbers),
    )
    looks = [numbers for numbers in watched if "held_out_accuracy" in numbers]
    assert len(looks) == 8
    seen = [(numbers["held_out_accuracy"], -numbers["held_out_loss"]) for numbers in looks]  # pyright: ignore
    assert facts["epoch"] == 1 + seen.index(max(seen))
    assert facts["chosen"] == "the best of 8 looks at 16 held-out rows"
    (view,) = trained.kind.plain(trained.encoder)(*held.fetch(torch.arange(16)))
    with torch.no_grad():
        right = (method.classify(view).argmax(1) == held.label).double().mean()
    assert float(100 * right) == max(seen)[0]  # pyright: ignore
    first = next(numbers["loss"] for numbers in watched if "loss" in numbers)
    assert first <= np.log(4) + 0.2


def test_views_are_mild(trained: Run) -> None:
    assert mild(trained) == "drawing"  # as those it was trained with
    other = Run(trained.path)
    other.settings = dataclasses.replace(other.settings, views="simclr")
    assert mild(other) == "cmc"


@pytest.mark.parametrize(("train", "layer"), [("frozen", 0), ("frozen", 1), ("full", 0), ("full", 1)])
def test_a_classifier_is_made_measured_and_a_run(trained: Run, tmp_path: Path, train: Any, layer: int) -> None:
    before = {name: value.clone() for name, value in trained.encoder.state_dict().items()}
    data = samples()
    made = finetune(trained, data, train=train, layer=layer, tuning=QUICK, out=tmp_path / "c", **QUIET)
    assert all(torch.equal(value, before[name]) for name, value in trained.encoder.state_dict().items())
    moved = any(not torch.equal(value, before[name]) for name, value in made.run.encoder.state_dict().items())
    assert moved == (train == "full")
    found = json.loads((made.path / "results" / "finetune.json").read_text())
    test = data.subset([i for i, split in enumerate(data.split) if split == "test"])
    right = [said == data.classes[int(c)] for said, c in zip(made.predict(test).label, test.label, strict=True)]
    assert found["rows"][0]["values"]["accuracy (%)"]["value"] == pytest.approx(100 * np.mean(right))
    assert found["protocol"]["layer"] == layer
    assert not trained.seen(test).all()
    assert len(made.evidence) == 48
    assert not made.evidence.held.any()  # too few to hold some out, or all learned from in turn
    assert set(made.evidence.names) == {str(i) for i in range(96) if data.split[i] == ""}
    again = nearfar.load(made.path)
    again.report()
    assert again.embed(data).shape == (96, trained.encoder.dim)
    assert again.export().dim == trained.encoder.dim
    assert again.evaluate(data)["rows"]
    assert again.config["classifier"]["train"] == train
    assert again.config["method"] == ("simclr" if train == "frozen" else "simclr, fine-tuned")


def test_the_middle_of_the_projector_is_the_methods(trained: Run, tmp_path: Path) -> None:
    made = finetune(trained, samples(), layer=1, out=tmp_path / "c", **QUIET)
    method = trained.method
    assert isinstance(method, SimCLR)
    (view,) = trained.kind.plain(trained.encoder)(*samples().fetch(torch.arange(6)))
    linear, norm = method.projector[0], method.projector[1]
    with torch.no_grad():
        torch.testing.assert_close(made.network(view), norm(linear(method.encoder(view))).relu())
    assert isinstance(made.layers[-1], nn.Linear)


def test_seeds_make_it_again(trained: Run, tmp_path: Path) -> None:
    for train in ("frozen", "full"):
        asked: dict[str, Any] = {"train": train, "per_class": 3, "tuning": QUICK}
        found = [
            finetune(trained, samples(), seed=seed, out=tmp_path / f"{train}{i}", **asked, **QUIET)
            for i, seed in enumerate((5, 5, 6))
        ]
        weights = [made.layers[-1].state_dict()["weight"] for made in found]
        assert torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[0], weights[2])


def test_classes_without_a_label_to_learn_from_count_as_wrong(trained: Run, tmp_path: Path) -> None:
    data = samples(48)
    strange = (data.label == 3) & torch.tensor([split == "" for split in data.split])
    data = dataclasses.replace(data, label=torch.where(strange, MISSING, data.label))
    told: list[str] = []
    made = finetune(trained, data, out=tmp_path / "c", say=told.append)
    assert made.classes == ["angle0", "angle1", "angle2"]
    assert any("6 are of classes without a label to learn from, and count as wrong" in text for text in told)


def test_untrained_weights_are_those_of_the_beginning(trained: Run, tmp_path: Path) -> None:
    made = finetune(trained, samples(), weights="untrained", out=tmp_path / "c", **QUIET)
    first = trained.untrained().state_dict()
    assert all(torch.equal(value, first[name]) for name, value in made.run.encoder.state_dict().items())
    with pytest.raises(ValueError, match="--layer 1 keeps a part of what was learned"):
        finetune(trained, samples(), weights="untrained", layer=1, out=tmp_path / "d", **QUIET)


def test_nothing_is_overwritten_and_nothing_is_left_of_what_failed(trained: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="is there already and is never overwritten: name another --out"):
        finetune(trained, samples(), out=tmp_path / "mine", **QUIET)
    for asked in ({"per_class": -1}, {"layer": 9}, {"train": "half"}):
        with pytest.raises(ValueError):
            finetune(trained, samples(), out=tmp_path / "new", **asked, **QUIET)  # pyright: ignore
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "mine" / "note.txt").read_text() == "precious"
    made = finetune(trained, samples(), out=tmp_path / "c", **QUIET)
    with pytest.raises(ValueError, match="is a classifier, and has no projector"):
        finetune(made.run, samples(), layer=1, out=tmp_path / "d", **QUIET)


@pytest.mark.parametrize("asked", [{"epochs": -1}, {"batch": 1}, {"lr": 0.0}])
def test_tuning_that_makes_no_sense(asked: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="are wanted"):
        Tuning(**asked)


def test_as_many_epochs_as_suit() -> None:
    assert Tuning().passes(20) == 300
    assert Tuning().passes(640) == 60
    assert Tuning(epochs=7).passes(20) == 7


def test_rows_of_a_table(tmp_path: Path) -> None:
    data = table(tmp_path / "things.csv")
    settings = {"epochs": 2, "batch": 16, "encoder": "mlp-16x2", "label_column": "kind", "device": "cpu"}
    run = nearfar.fit(str(data), "simclr", out=tmp_path / "run", **QUIET, **settings)
    for train in ("frozen", "full"):
        made = finetune(run, str(data), train=train, tuning=QUICK, out=tmp_path / train, **QUIET)
        found = made.predict(str(data))
        assert made.classes == ["a", "b", "c"]
        assert np.mean([label == "abc"[i % 3] for i, label in enumerate(found.label)]) > 0.5
