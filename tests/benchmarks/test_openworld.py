from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.openworld import KNOWN, ROWS, OpenWorld, main, one, path, table, with_few_labels

from benchmarks import openworld
from nearfar.batch import MISSING
from nearfar.modalities.image.samples import Images, open_images


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(openworld, "RESULTS", tmp_path)
    return tmp_path


@pytest.fixture
def colored() -> Images:
    """Noise about a color for each of ten classes."""
    g = np.random.default_rng(0)
    label = np.arange(80) % 10
    color = g.integers(0, 200, (10, 1, 1, 3))
    pixels = (color[label] + g.integers(0, 56, (80, 32, 32, 3))).astype(np.uint8)
    return open_images(pixels, labels=label)


def test_half_of_the_labels_of_half_of_the_classes_are_left(colored: Images) -> None:
    seen = with_few_labels(colored, 0)
    assert seen.classes == colored.classes[:KNOWN]
    left = seen.label != MISSING
    assert torch.equal(seen.label[left], colored.label[left])
    assert not left[colored.label >= KNOWN].any()
    assert 0.25 < float(left[colored.label < KNOWN].float().mean()) < 0.75
    assert not torch.equal(with_few_labels(colored, 1).label, seen.label)
    assert (colored.label != MISSING).all()


@pytest.mark.parametrize("row", ["supcon", "simclr, then opencon's last stage"])
def test_a_run_is_measured_on_what_had_no_label(row: str, colored: Images) -> None:
    result = one(row, 0, 2, colored)
    readouts = ["k-means"] if row == "supcon" else ["k-means", "prototypes"]
    assert list(result["results"]) == readouts
    assert list(result["sources"]) == [method for method, _ in ROWS[row]]
    assert sum(flags["epochs"] for flags in result["flags"]) == 2
    for found in result["results"].values():
        assert found["protocol"]["rows"] == 80 - result["labeled"]
        assert 40 - result["labeled"] == found["protocol"]["known_rows"]
        assert all(0 <= found[name] <= 100 for name in openworld.MEASURES)


def write(row: str, asked: OpenWorld, values: list[float], **readouts: float) -> None:
    for seed, value in enumerate(values):
        results = {
            name.replace("_", "-"): {"all": value + more, "known": value, "novel": 30.0}
            for name, more in readouts.items()
        }
        result = {"results": results, "cpu_seconds": 60, "sources": {ROWS[row][-1][0]: "of old"}}
        path(row, seed, asked).write_text(json.dumps(result))


def test_the_table_says_what_is_gained_and_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    asked = OpenWorld(table=True)
    write("simclr", asked, [20, 21, 22], k_means=0.0)
    write("opencon", asked, [40, 41, 42], k_means=0.0, prototypes=1.0)
    shown = table(tuple(ROWS), asked)
    assert "| opencon (changed since) | prototypes | 42.0 [39.5, 44.5] |" in shown
    assert "| supcon | | | | | 0 of 3 runs |" in shown
    gained = "| opencon | prototypes | simclr | +21.0 [+21.0, +21.0], better at this budget | +20.0 [+20.0, +20.0]"
    assert gained in shown
    assert "+0.0 [+0.0, +0.0], no difference seen at this budget |" in shown
    main(asked)
    assert gained in capsys.readouterr().out


def test_a_row_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="no row 'dino'; there are simclr, "):
        main(OpenWorld(("dino",)))
