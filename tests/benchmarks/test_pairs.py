from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import pairs
from nearfar.evaluation.protocol import packed


def test_the_table_pools_test_samples_and_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "RESULTS", tmp_path)
    for seed in range(3):
        hit = torch.arange(20) < 8 + seed
        way = {"right": {"1": packed(hit), "5": packed(hit | True)}, "chance": {"1": 5.0, "5": 25.0}}
        way["sample"] = list(range(20))
        result = {"image to text": way, "took": {"cpu_seconds": 10.0 + seed}, "before": {"cpu_seconds": 5.0}}
        pairs.path("emoji", "lit", seed).write_text(json.dumps(result | {"text to image": way}))
    head, _, chance, row = pairs.table("emoji", 3).splitlines()
    assert head.count("R@1 %") == head.count("R@5 %") == 2
    assert chance.replace("|", " ").split()[1:] == ["5.0", "25.0", "5.0", "25.0"]
    cells = row.split(" | ")
    assert cells[1] == "3"
    assert cells[2].startswith("45.0 [")
    assert cells[3].startswith("100.0 [")
    assert cells[-1] == "16 |"


def test_ridge_regression_joins_what_a_linear_map_joins() -> None:
    generator = torch.Generator().manual_seed(0)
    one, place = torch.randn(60, 6, generator=generator), torch.arange(60)[:, None].expand(-1, 2)
    two = one @ torch.randn(6, 9, generator=generator)
    for forward in (True, False):
        bring = pairs.Join(forward, 1e-3).fit((one, two), place[:40])
        u, v = bring(one[40:], 0), bring(two[40:], 1)
        assert torch.cosine_similarity(u, v).min() > 0.99


def test_held_out_bases_of_emoji_are_tested(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "DATA", shared_data)
    learn, test = pairs.emoji(False)
    assert learn["picture"].shape[1:] == (32, 32, 3)
    assert (len(learn["name"]) + len(test["name"]), len(set(test["label"]))) == (1906, 9)
    assert not set(learn["name"]) & set(test["name"])
