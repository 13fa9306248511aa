from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nearfar.fewlabels.settings import DistillSettings, FinetuneSettings, Labeled, Tuning, given, with_keywords


def test_keywords_lie_over_settings() -> None:
    settings = with_keywords(FinetuneSettings(per_class=3, lr=1e-2), {"per_class": 5, "train": "full"})
    assert settings == FinetuneSettings(per_class=5, lr=1e-2, train="full")
    with pytest.raises(TypeError, match=r"no argument 'per_clas'; did you mean per_class"):
        with_keywords(FinetuneSettings(), {"per_clas": 5})
    with pytest.raises(TypeError, match=r"no argument 'xyz'; there are .*alpha"):
        with_keywords(DistillSettings(), {"xyz": 5})


@pytest.mark.parametrize(
    ("kind", "values", "flag"),
    [
        (Tuning, {"epochs": -1}, "--epochs -1"),
        (FinetuneSettings, {"batch": 1}, "--batch 1"),
        (DistillSettings, {"lr": 0.0}, "--lr 0"),
        (FinetuneSettings, {"train": "half"}, "--train 'half'"),
        (FinetuneSettings, {"weights": "best"}, "--weights 'best'"),
        (FinetuneSettings, {"weights": "untrained", "layer": 1}, "--layer 1"),
        (DistillSettings, {"alpha": 1.5}, r"--alpha 1\.5"),
        (DistillSettings, {"temperature": 0.0}, "--temperature 0"),
    ],
)
def test_settings_that_make_no_sense(kind: Any, values: dict[str, Any], flag: str) -> None:
    with pytest.raises(ValueError, match=flag):
        kind(**values)


def test_as_many_epochs_as_suit() -> None:
    assert Tuning().passes(20) == 300
    assert Tuning().passes(640) == 60
    assert DistillSettings().passes(10_000) == 20
    assert Tuning(epochs=7).passes(20) == 7


def test_no_labels_are_none() -> None:
    assert given(Labeled()) is None
    assert given(Labeled(labels=None)) is None
    assert given(Labeled(labels="folders")) == "folders"
    array = np.arange(3)
    assert given(Labeled(labels=array)) is array
