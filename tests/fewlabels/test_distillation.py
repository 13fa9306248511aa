"""A student that learns what a classifier says of samples without labels."""

from __future__ import annotations

import copy
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
from nearfar.fewlabels.distillation import Distillation, distill
from nearfar.losses.distillation import distillation
from nearfar.method import Stage
from nearfar.modalities.image.samples import Images
from nearfar.run import Run
from tests.fewlabels.conftest import QUIET, VARYING, Stop, samples
from tests.tiny import contents, tiny_images

QUICK: dict[str, Any] = {"epochs": 1, "batch": 16, **QUIET}


def without_labels(data: Images) -> Images:
    return dataclasses.replace(data, label=torch.full_like(data.label, MISSING), classes=[])


def weights(classifier: Classifier) -> torch.Tensor:
    return classifier.layers[-1].state_dict()["weight"]


def small(classes: int = 3, **asked: Any) -> Distillation:
    torch.manual_seed(0)
    encoder = Stage(nn.Flatten(), nn.Linear(16, 5), nn.BatchNorm1d(5), dim=5)
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.BatchNorm1d(6), nn.Linear(6, classes))
    return Distillation(encoder, teacher, classes=classes, **asked)


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


@pytest.mark.parametrize("asked", [{}, {"temperature": 3.0, "scaled": True, "alpha": 0.25}, {"alpha": 0.0}])
def test_the_loss_is_that_of_the_formula(asked: dict[str, Any]) -> None:
    given = batch()
    given.label[::2] = MISSING
    method = small(**asked).eval()
    logits = method.classifier(method.encoder(given.views[0]))
    expected = distillation(logits, method.teacher(given.views[0]), label=given.label, **asked)
    torch.testing.assert_close(method(given).loss, expected)


def test_stopped_and_resumed_it_ends_with_the_same_bits(linear: Classifier, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"epochs": 3, "batch": 16, "alpha": 0.5, **QUIET}
    distill(linear, samples(), out=tmp_path / "whole", **asked)
    out = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        distill(linear, samples(), out=out, watch=Stop(2), **asked)
    assert not (out / "config.yaml").exists()
    distill(linear, samples(), out=out, resume=True, **asked)
    assert contents(out, VARYING) == contents(tmp_path / "whole", VARYING)
    assert not (out / "checkpoints").exists()


def test_a_student_comes_to_agree_with_its_teacher(run: Run, linear: Classifier, tmp_path: Path) -> None:
    data = samples()
    asked: dict[str, Any] = {"from_run": str(run.path), "temperature": 0.05, "epochs": 20, "batch": 16, "lr": 3e-3}
    student = distill(linear, data, out=tmp_path / "s", **asked, **QUIET)
    learned = data.subset(data.of_split("").nonzero()[:, 0])
    same = [a == b for a, b in zip(student.predict(learned).label, linear.predict(learned).label, strict=True)]
    assert sum(same) > 0.6 * len(same), sum(same)  # a fourth by chance
    expected = {"train": "distilled", "teacher": str(linear.path), "alpha": 1.0, "learned": 48, "epochs": 20}
    expected |= {"calibrated_by_teacher": True, "calibration_rows": 0}
    assert {name: student.facts[name] for name in expected} == expected
    assert student.temperature is not None
    assert student.classes == linear.classes
    config = student.run.config
    assert (config["method"], config["samples"], config["classifier"]) == ("simclr, distilled", 48, student.facts)
    # Its evidence is its teacher's, as it sees it.
    assert sorted(student.evidence.digests) == sorted(linear.evidence.digests)
    place = dict(zip(linear.evidence.digests, linear.evidence.label.tolist(), strict=True))
    assert [place[digest] for digest in student.evidence.digests] == student.evidence.label.tolist()
    seen = student.features(data.subset([int(name) for name in student.evidence.names]))
    torch.testing.assert_close(student.evidence.features, seen, atol=1e-5, rtol=1e-4)


def test_on_other_samples_without_labels(linear: Classifier, tmp_path: Path) -> None:
    strange = nearfar.open_images(255 - tiny_images(32))
    student = distill(linear, strange, out=tmp_path / "s", **QUICK)
    assert not len(student.evidence)
    assert student.predict(samples(8)).near == [[]] * 8
    assert not (student.path / "results" / "finetune.json").exists()  # there is nothing to measure by


def test_the_temperature_comes_from_labels_that_nobody_learned(linear: Classifier, tmp_path: Path) -> None:
    data = samples(160, split=("", "val", "test", ""))
    by_val = distill(linear, data, out=tmp_path / "a", **QUICK)
    assert (by_val.facts["calibration_rows"], by_val.facts["calibrated_by_teacher"]) == (40, False)
    teacher = copy.copy(linear)
    teacher.evidence = dataclasses.replace(linear.evidence, held=torch.ones(48, dtype=torch.bool))
    by_held = distill(teacher, samples(), out=tmp_path / "b", **QUICK)  # as a teacher that holds some out
    assert (by_held.facts["calibration_rows"], by_held.facts["calibrated_by_teacher"]) == (48, False)
    assert by_held.evidence.held.all()
    doubtful = copy.copy(linear)
    doubtful.temperature = None
    unknown = distill(doubtful, samples(), out=tmp_path / "c", **QUICK)
    assert unknown.temperature is None
    assert unknown.facts["calibration_rows"] == 0


def test_labels_teach_where_alpha_is_below_one(run: Run, tmp_path: Path) -> None:
    data = samples(48)
    teacher = nearfar.finetune(run, data, per_class=2, out=tmp_path / "teacher", **QUIET)
    students = {
        alpha: distill(teacher, data, alpha=alpha, seed=4, out=tmp_path / f"{alpha}", **QUICK) for alpha in (0.5, 1.0)
    }
    assert not torch.equal(weights(students[0.5]), weights(students[1.0]))
    assert {alpha: len(student.evidence) for alpha, student in students.items()} == {0.5: 24, 1.0: 8}
    bare = without_labels(data)
    same = distill(teacher, bare, seed=4, out=tmp_path / "bare", **QUICK)
    assert torch.equal(weights(same), weights(students[1.0]))  # alpha 1 uses no label
    with pytest.raises(ValueError, match=r"--alpha 0\.5 learns from labels"):
        distill(teacher, bare, alpha=0.5, out=tmp_path / "no", **QUICK)
    assert not (tmp_path / "no").exists()


def test_a_student_of_another_network_or_from_a_run(linear: Classifier, run: Run, tmp_path: Path) -> None:
    still: dict[str, Any] = {"epochs": 1, "batch": 48, "lr": 1e-9, **QUIET}
    student = distill(linear, samples(), student="test_vit2", out=tmp_path / "s", **still)
    assert student.run.encoder.spec["name"] == student.run.settings.encoder == "test_vit2"
    assert student.run.untrained().spec["name"] == "test_vit2"
    same = distill(linear, samples(), from_run=str(run.path), out=tmp_path / "t", **still)
    moved = dict(same.run.encoder.named_parameters())
    for name, value in run.encoder.named_parameters():
        torch.testing.assert_close(moved[name], value, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="not --student 'test_vit2'"):
        distill(linear, samples(), student="test_vit2", from_run=str(run.path), out=tmp_path / "u", **still)
    assert not (tmp_path / "u").exists()


def test_classes_are_found_by_name(linear: Classifier, tmp_path: Path) -> None:
    data = samples()
    order = ["angle2", "stranger", "angle0", "angle3", "angle1"]
    names = [data.classes[c] for c in data.label.tolist()]
    names[1] = "stranger"  # a sample that is learned from
    other = dataclasses.replace(data, label=torch.tensor([order.index(name) for name in names]), classes=order)
    tables = [
        json.loads((distill(linear, given, out=tmp_path / name, **QUICK).path / "results/finetune.json").read_text())
        for name, given in (("a", data), ("b", other))
    ]
    assert tables[0]["rows"] == tables[1]["rows"]
    assert tables[0]["per_class"] == tables[1]["per_class"]


def test_a_run_is_no_teacher(run: Run, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is a run without a classifier"):
        distill(run.path, samples(), out=tmp_path / "s", **QUIET)
