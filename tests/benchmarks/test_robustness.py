from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.robustness import AGAINST, COLUMNS, ENTRIES, UNTRAINED, Robustness, main, measured, table

from benchmarks import robustness
from nearfar import methods
from nearfar.modalities.image.drawings import drawings
from nearfar.modalities.image.encoder import image_encoder
from nearfar.training import plan as plans


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(robustness, "RESULTS", tmp_path)
    return tmp_path


def result(name: str, seed: int, **numbers: float) -> dict[str, Any]:
    results = {side: dict.fromkeys(COLUMNS, 50.0 + seed) | numbers for side in (name, UNTRAINED)}
    return {"results": results, "seed": seed, "cpu_seconds": 60, "seconds": 61}


def test_methods_have_one_budget() -> None:
    for entry in ENTRIES.values():
        if entry.method in methods.names():
            settings = plans.make(entry.method, "drawings", "small_images:default", entry.flags).settings
            assert (settings.encoder, settings.batch) == ("conv4", 128)
            assert (settings.optimizer, settings.lr) == ("adamw", 2e-3)
    assert {name for pair in AGAINST for name in pair} == set(ENTRIES)


def test_only_what_is_missing_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ran = []

    def one(name: str, seed: int, asked: Robustness) -> dict[str, Any]:
        ran.append((name, seed))
        return result(name, seed)

    monkeypatch.setattr(robustness, "one", one)
    main(Robustness(("simclr", "robust, attacked"), seeds=2))
    assert ran == [("simclr", 0), ("robust, attacked", 0), ("simclr", 1), ("robust, attacked", 1)]
    main(Robustness(("simclr",), seeds=2))
    main(Robustness(table=True, seeds=5))
    assert len(ran) == 4
    assert "| robust, attacked - simclr | +0.0 [+0.0, +0.0], none seen" in capsys.readouterr().out
    with pytest.raises(ValueError, match="there is no 'nothing' here"):
        main(Robustness(("nothing",)))


def test_the_table_pairs_seeds(folder: Path) -> None:
    asked = Robustness()
    for seed in range(3):
        for name, numbers in (("simclr", {}), ("robust", {"pgd 2": 60.0 + 1.1 * seed})):
            path = folder / f"{name}-10000x3-seed{seed}.json"
            path.write_text(json.dumps(result(name, seed, **numbers)))
    lines = table(asked).splitlines()
    assert lines[2].startswith(f"| {UNTRAINED} | 51.0 [48.5, 53.5] |")
    assert lines[3].endswith("| 60 |")
    assert "+10.1 [+9.9, +10.3] |" in lines[-1]


def test_measures_of_an_encoder() -> None:
    images = drawings("test").subset([20 * c + d for c in range(5) for d in range(12)])
    images.label, images.classes = torch.arange(5).repeat_interleave(12), list("abcde")
    torch.manual_seed(0)
    encoder = image_encoder("conv4", channels=1, size=32, mean=[0.5], std=[0.5]).eval()
    found = measured(encoder, images, images, images)
    assert found["clean"] == found["clean of attacked"] > 90  # on what the classifier has learned from
    assert found["clean"] >= found["fgsm 1"] >= found["fgsm 2"] >= found["fgsm 4"] >= found["fgsm 8"]
    assert found["pgd 2"] <= found["fgsm 2"]
    assert {name: len(of) for name, of in found["corruptions"].items()} == dict.fromkeys(robustness.SEVERITIES, 5)
    assert 20 < found["spoilt"] <= 100
    assert found["ece, temperature"] <= found["ece"] + 1e-6
