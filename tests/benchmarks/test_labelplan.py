from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import labelplan
from nearfar.modalities.image.samples import open_images
from tests.tiny import tiny_images


def test_classes_without_a_label_count_as_wrong() -> None:
    label = torch.arange(48) % 4
    data = open_images((tiny_images(), label.numpy()))
    data.split = ["train"] * 24 + ["test"] * 24
    features = torch.nn.functional.one_hot(label, 4).float()
    assert labelplan.accuracy(features, data, torch.arange(24), 0) == 100
    two = (label[:24] < 2).nonzero()[:, 0]
    assert labelplan.accuracy(features, data, two, 0) == 50


def test_random_labels_are_of_the_pool_and_of_their_draw() -> None:
    pool = torch.arange(10, 30)
    first, second = (labelplan.drawn(pool, 8, 0, draw) for draw in (0, 1))
    assert len(first.unique()) == 8
    assert torch.isin(first, pool).all()
    assert not torch.equal(first, second)


def test_the_table_takes_differences_seed_by_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelplan, "RESULTS", tmp_path)
    assert labelplan.table("drawings") == "drawings: 0 runs"
    for seed in range(3):
        ways = {"random": 20 + 5 * seed, "coverage": 30 + 5 * seed, "uncertainty": 20 + seed}
        budgets = {"60": {way: {"accuracy": value, "classes": 10 * seed} for way, value in ways.items()}}
        (tmp_path / f"drawings-seed{seed}.json").write_text(json.dumps({"budgets": budgets}))
    table = labelplan.table("drawings")
    assert "| at random, % | 25.0 [12.6, 37.4] |" in table
    assert "| coverage over random | +10.0 [+10.0, +10.0] |" in table
    assert "uncertainty over random | -4.0 [-13.9, +5.9]: no difference seen |" in table
    assert "| classes with a label, coverage | 10 |" in table
