"""A student that learns what a classifier says of samples without labels."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import nearfar
from nearfar.batch import MISSING, Batch
from nearfar.fewlabels.classifier import Classifier
from nearfar.fewlabels.distillation import Distillation, DistillTuning, distill
from nearfar.fewlabels.finetuning import finetune
from nearfar.losses.distillation import distillation
from nearfar.method import Stage
from nearfar.run import Run
from tests.fewlabels.test_finetuning import samples
from tests.tiny import SETTINGS, tiny_images

QUIET: dict[str, Any] = {"say": lambda text: None}
QUICK = DistillTuning(epochs=100, batch=16, lr=2e-3)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "run"
    return nearfar.fit(tiny_images(), "simclr", out=out, dim=32, **QUIET, **SETTINGS)


@pytest.fixture(scope="module")
def teacher(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return finetune(run, samples(), per_class=5, layer=1, out=tmp_path_factory.mktemp("made") / "c", **QUIET)


def small(classes: int = 3, **asked: Any) -> Distillation:

    torch.manual_seed(0)
    encoder = Stage(nn.Flatten(), nn.Linear(16, 5), nn.BatchNorm1d(5), dim=5)
    taught = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.BatchNorm1d(6), nn.Linear(6, classes))
    return Distillation(encoder, taught, classes=classes, **asked)


def batch(n: int = 12, classes: int = 3) -> Batch:
    x = torch.randn(n, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    return Batch([x], torch.arange(n), torch.arange(n) % classes)


def test_only_the_student_learns() -> None:
    method = small(temperature=2.0, scaled=True).train()
    before = {name: value.clone() for name, value in method.teacher.state_dict().items()}
    assert not method.teacher.training
    assert method.encoder.training
    step = method(batch())
    step.loss.backward()
    assert all(p.grad is None and not p.requires_grad for p in method.teacher.parameters())
    assert all(p.grad is not None for p in [*method.encoder.parameters(), *method.classifier.parameters()])
    assert all(torch.equal(value, before[name]) for name, value in method.teacher.state_dict().items())
    assert 0 <= float(step.log["agreement"]) <= 1


def test_the_loss_is_that_of_the_formula() -> None:
    given = batch()
    given.label[::2] = MISSING
    for asked in ({}, {"temperature": 0.5}, {"temperature": 3.0, "scaled": True, "alpha": 0.25}, {"alpha": 0.0}):
        method = small(**asked).eval()
        logits = method.classifier(method.encoder(given.views[0]))
        expected = distillation(logits, method.teacher(given.views[0]), label=given.label, **asked)
        torch.testing.assert_close(method(given).loss, expected)


def test_a_student_comes_to_agree_with_its_teacher(teacher: Classifier, tmp_path: Path) -> None:
    data = samples()
    made = distill(teacher, data, start=teacher.facts["run"], tuning=QUICK, out=tmp_path / "s", **QUIET)
    learned = data.subset([i for i, split in enumerate(data.split) if split == ""])
    own, told = made.predict(learned), teacher.predict(learned)
    same = [a == b for a, b in zip(own.label, told.label, strict=True)]
    assert sum(same) > 0.8 * len(same), sum(same)
    assert made.classes == teacher.classes
    assert made.run.config["classifier"]["train"] == "distilled"
    found = json.loads((made.path / "results" / "finetune.json").read_text())
    assert found["protocol"]["alpha"] == 1.0
    assert made.run.embed(data).shape == (96, made.run.encoder.dim)
    assert made.run.report().is_file()


def test_its_evidence_is_its_teachers_as_it_sees_it(teacher: Classifier, tmp_path: Path) -> None:
    data = samples()
    bare = dataclasses.replace(data, label=torch.full_like(data.label, MISSING), classes=[])
    told: list[str] = []
    made = distill(teacher, bare, tuning=DistillTuning(epochs=2, batch=16), out=tmp_path / "s", say=told.append)
    assert sorted(made.evidence.digests) == sorted(teacher.evidence.digests)
    assert len(made.evidence) == 20
    place = {digest: int(label) for digest, label in zip(teacher.evidence.digests, teacher.evidence.label, strict=True)}
    assert [place[digest] for digest in made.evidence.digests] == made.evidence.label.tolist()
    torch.testing.assert_close(
        made.evidence.features, made.features(data.subset([int(n) for n in made.evidence.names])), atol=1e-5, rtol=1e-4
    )
    assert any("Not measured" in text for text in told)
    strange = nearfar.open_images(255 - tiny_images(32))
    told.clear()
    other = distill(teacher, strange, tuning=DistillTuning(epochs=1, batch=16), out=tmp_path / "o", say=told.append)
    assert not len(other.evidence)
    assert any("None of the labeled samples behind the teacher is in DATA" in text for text in told)
    assert other.predict(data).near == [[]] * 96


def test_how_sure_it_may_be(teacher: Classifier, tmp_path: Path) -> None:
    assert teacher.temperature is not None
    tuning = DistillTuning(epochs=4, batch=16)
    by_teacher = distill(teacher, samples(), tuning=tuning, out=tmp_path / "a", **QUIET)
    assert by_teacher.facts["calibration"] == "temperature brought to what the calibrated teacher believes"
    data = samples(160, split=("", "val", "test", ""))
    by_labels = distill(teacher, data, tuning=tuning, out=tmp_path / "b", **QUIET)
    assert by_labels.facts["calibration"].startswith("temperature fitted on 40 labeled rows")
    known = Classifier(teacher.path)
    known.evidence.held[:] = True  # as of a teacher that was fine-tuned, which holds some out
    by_held = distill(known, samples(), tuning=tuning, out=tmp_path / "d", **QUIET)
    assert by_held.facts["calibration"].startswith("temperature fitted on 20 labeled rows")
    assert by_held.evidence.held.all()
    doubtful = Classifier(teacher.path)
    doubtful.temperature = None
    unknown = distill(doubtful, samples(), tuning=tuning, out=tmp_path / "c", **QUIET)
    assert unknown.temperature is None
    assert unknown.facts["calibration"].startswith("not calibrated")


def test_labels_teach_where_alpha_is_below_one(teacher: Classifier, tmp_path: Path) -> None:
    data = samples()
    tuning = DistillTuning(epochs=2, batch=16, seed=4)
    made = {
        alpha: distill(teacher, data, alpha=alpha, tuning=tuning, out=tmp_path / f"{alpha}", **QUIET)
        for alpha in (0.0, 0.5, 1.0)
    }
    weights = [one.layers[-1].state_dict()["weight"] for one in made.values()]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])
    assert len(made[0.5].evidence) == 48  # its own labels are evidence too
    bare = dataclasses.replace(data, label=torch.full_like(data.label, MISSING), classes=[])
    same = distill(teacher, bare, tuning=tuning, out=tmp_path / "bare", **QUIET)
    assert torch.equal(same.layers[-1].state_dict()["weight"], weights[2])  # alpha 1 uses no label
    with pytest.raises(ValueError, match=r"--alpha 0\.5 learns from labels too, and none are known"):
        distill(teacher, bare, alpha=0.5, tuning=tuning, out=tmp_path / "no", **QUIET)
    assert not (tmp_path / "no").exists()


def test_a_student_of_another_kind_or_from_a_run(teacher: Classifier, run: Run, tmp_path: Path) -> None:
    tuning = DistillTuning(epochs=1, batch=48, lr=1e-9)
    made = distill(teacher, samples(), student="test_vit2", tuning=tuning, out=tmp_path / "s", **QUIET)
    assert made.run.encoder.spec["name"] == made.run.settings.encoder == "test_vit2"
    assert made.run.untrained().spec["name"] == "test_vit2"
    same = distill(teacher, samples(), start=run.path, tuning=tuning, out=tmp_path / "t", **QUIET)
    for name, value in same.run.encoder.state_dict().items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(value, run.encoder.state_dict()[name], atol=1e-6, rtol=1e-4)
    with pytest.raises(ValueError, match="has the encoder 'conv4', not --student 'resnet10t'"):
        distill(teacher, samples(), start=run.path, student="resnet10t", out=tmp_path / "u", **QUIET)


def test_classes_are_the_same_by_name(teacher: Classifier, tmp_path: Path) -> None:
    data = samples()
    order = ["angle2", "stranger", "angle0", "angle3", "angle1"]
    names = [data.classes[c] for c in data.label.tolist()]
    names[1] = "stranger"
    other = dataclasses.replace(data, label=torch.tensor([order.index(n) for n in names]), classes=order)
    told: list[str] = []
    tuning = DistillTuning(epochs=1, batch=16)
    made = distill(teacher, other, tuning=tuning, out=tmp_path / "s", say=told.append)
    same = distill(teacher, data, tuning=tuning, out=tmp_path / "t", **QUIET)
    assert any(text.startswith("1 classes, such as 'stranger', are none of the teacher's") for text in told)
    results = [json.loads((one.path / "results" / "finetune.json").read_text())["rows"] for one in (made, same)]
    assert results[0] == results[1]


@pytest.mark.parametrize("asked", [{"alpha": 1.5}, {"temperature": 0.0}])
def test_what_makes_no_sense(teacher: Classifier, asked: dict[str, float], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="are wanted"):
        distill(teacher, samples(), out=tmp_path / "s", **asked, **QUIET)  # pyright: ignore


def test_a_run_is_no_teacher(run: Run, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is a run without a classifier"):
        distill(run.path, samples(), out=tmp_path / "s", **QUIET)
