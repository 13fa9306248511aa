"""A classifier's two files: what is written comes back, and what is damaged is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from nearfar.fewlabels import store
from nearfar.fewlabels.classifier import Classifier
from nearfar.files import read_json, replace_json
from nearfar.run import Run


def test_what_is_written_comes_back(linear: Classifier, tmp_path: Path) -> None:
    layers = nn.Sequential(
        nn.Linear(5, 4, bias=False), nn.BatchNorm1d(4, affine=False, eps=1e-3), nn.ReLU(), nn.Linear(4, 3)
    )
    layers(torch.randn(9, 5))  # moves the running statistics
    evidence = linear.evidence
    before = store.Stored(
        layers=layers, classes=["a", "b", "c"], temperature=None, evidence=evidence, facts={"train": "frozen", "n": [1]}
    )
    store.write(tmp_path, before)
    after = store.read(tmp_path)
    x = torch.randn(6, 5)
    with torch.no_grad():
        assert torch.equal(after.layers(x), layers.eval()(x))
    assert (after.classes, after.temperature, after.facts) == (before.classes, None, before.facts)
    assert (after.evidence.names, after.evidence.digests) == (evidence.names, evidence.digests)
    for name in ("label", "held", "features"):
        assert torch.equal(getattr(after.evidence, name), getattr(evidence, name))
    with pytest.raises(ValueError, match="not Tanh"):
        store.write(
            tmp_path / "other",
            store.Stored(layers=nn.Sequential(nn.Tanh()), classes=[], temperature=None, evidence=evidence, facts={}),
        )


def test_a_run_without_a_classifier_names_the_command(run: Run, tmp_path: Path) -> None:
    assert not store.is_classifier(run.path)
    with pytest.raises(FileNotFoundError, match=f"nearfar finetune {run.path} DATA --labels labels.csv"):
        Classifier(run.path)
    with pytest.raises(FileNotFoundError, match="nearfar finetune RUN DATA"):
        Classifier(tmp_path)


@pytest.mark.parametrize("how", ["weights", "cut", "format", "missing", "key"])
def test_a_damaged_classifier_is_refused(linear: Classifier, tmp_path: Path, how: str) -> None:
    copy = Path(shutil.copytree(linear.path, tmp_path / "c"))
    text, weights = copy / "classifier.json", copy / "classifier.safetensors"
    document = read_json(text, "")
    match how:
        case "weights":
            content = bytearray(weights.read_bytes())
            content[-1] ^= 1
            weights.write_bytes(content)
        case "cut":
            text.write_text(text.read_text()[:100])
        case "format":
            replace_json(text, document | {"format": 99})
        case "missing":
            weights.unlink()
        case _:
            replace_json(text, {name: value for name, value in document.items() if name != "classes"})
    with pytest.raises(ValueError, match=r"make the classifier again, with `nearfar finetune`"):
        Classifier(copy)
