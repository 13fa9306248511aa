from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.defaults import sets
from benchmarks.transfer import RAW, UNTRAINED, joined, one, table, whole

from benchmarks import transfer
from nearfar.evaluation.protocol import packed
from nearfar.studies.across_sets import KNN, LINEAR


def tiny(classes: int, channels: int) -> sets.Set:
    """Forty-eight images of a few shades, two to a group, of which sixteen are tested."""
    draw = np.random.default_rng(channels)
    label = np.arange(48) % classes
    shade = draw.integers(0, 150, (48, 32, 32, channels)) + 50 * label[:, None, None, None]
    rows = np.arange(48)
    return sets._set(shade.astype(np.uint8), label, list("abc")[:classes], rows < 32, rows >= 32, rows // 2)


@pytest.fixture(autouse=True)
def two_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    sources = {name: sets.Source("", "photo", make, "") for name, make in {
        "color": lambda: tiny(3, 3), "gray": lambda: tiny(2, 1)}.items()}  # fmt: skip
    monkeypatch.setattr(sets, "SETS", sources)
    monkeypatch.setattr(transfer, "RESULTS", tmp_path)
    monkeypatch.setattr(transfer, "SETS", {"photographs": "color", "old drawings": "gray"})
    monkeypatch.setattr(transfer, "SOURCES", {"photographs": "color"})
    monkeypatch.setattr(transfer, "FLAGS", {"encoder": "conv4", "epochs": 1, "batch": 16, "probe_every": 0})
    sets.load.cache_clear()
    whole.cache_clear()
    return tmp_path


def test_a_cell_is_measured_once(two_sets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one("simclr", "photographs", 0)
    files = {path.name: path.read_text() for path in two_sets.iterdir()}
    rows = [f"photographs-{row}-seed0-{name}.json" for row in ("simclr", UNTRAINED, RAW)
            for name in ("photographs", "old_drawings")]  # fmt: skip
    assert set(files) == {*rows, "photographs.json", "old_drawings.json"}
    cell = json.loads(files[rows[0]])
    assert cell["values"][LINEAR]["protocol"]["test"] == 16
    assert "right" in cell["values"][KNN]
    assert "right" not in cell["values"]["5 labels a class (%)"]
    about = json.loads(files["old_drawings.json"])
    assert (about["learned"], about["tested"], len(set(about["group"]))) == (32, 16, 8)
    made = table("photographs", ("simclr",))
    assert "| simclr | **" in made
    assert "Pre-trained on photographs, linear (%), seeds: 1" in made

    def never(plan: Any) -> None:
        raise AssertionError("it was trained again")

    monkeypatch.setattr(transfer, "trained", never)
    one("simclr", "photographs", 0)
    assert {path.name: path.read_text() for path in two_sets.iterdir()} == files


def test_units_on_both_sides_are_groups_of_their_own() -> None:
    images = whole("photographs")
    learned, tested = (images.of_split(name) for name in ("train", "test"))
    assert not set(images.group[learned].tolist()) & set(images.group[tested].tolist())
    assert len(images.group[learned].unique()) == 16
    data = sets.load("color")
    assert torch.equal(images.label[tested], data.test.label)
    assert torch.equal(images.pixels(tested.nonzero()[:, 0]), data.test.pixels(torch.arange(16)))


def test_seeds_are_joined() -> None:
    def cell(right: int) -> dict[str, Any]:
        few = {"accuracy": float(right), "low": 0.0, "high": 9.0, "of": "x"}
        return {LINEAR: few | {"right": packed(torch.arange(100) < right)}, "1 label a class (%)": few}

    made = joined([cell(40), cell(50)], None, "x")
    assert [made[title]["accuracy"] for title in made] == pytest.approx([45, 45])
    assert made[LINEAR]["right"].startswith("2x100")
    assert "right" not in made["1 label a class (%)"]
    assert joined([cell(40)], None, "x")["1 label a class (%)"]["high"] == 9
