from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.learn import source
from benchmarks.longtail import AGAINST, METHODS, LongTail, path, probe, table

from benchmarks import longtail
from nearfar import methods
from nearfar.modalities.image.drawings import drawings
from nearfar.modalities.image.samples import Images
from nearfar.modalities.image.settings import DRAWINGS
from nearfar.training import plan as plans


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(longtail, "RESULTS", tmp_path)


def few() -> Images:
    """Five characters with 10 drawings each."""
    images = drawings("test").subset([20 * c + d for c in range(5) for d in range(10)])
    images.label, images.classes = torch.arange(5).repeat_interleave(10), list("abcde")
    images.split = [""] * 50
    return images


def write(row: str, values: list[float], **more: Any) -> None:
    for seed, value in enumerate(values):
        found = {"all": value, "many": value + 10, "medium": value, "few": None}
        method = row.split()[0]
        result = {"results": {"probe": found, "own": found}, "cpu_seconds": 60, "method": method} | more
        path(row, seed, 3).write_text(json.dumps({"source": source(method)} | result))


@pytest.mark.parametrize("row", METHODS)
def test_all_rows_share_a_budget(row: str) -> None:
    method, flags = row.split()[0], longtail.SHARED | METHODS[row]
    assert method in methods.names()
    plan = plans.make(method, DRAWINGS, "small_images:default", flags)
    first = plans.make("crossentropy", DRAWINGS, "small_images:default", longtail.SHARED)
    assert plan.settings == first.settings
    assert plan.settings.probe_every == 0


def test_the_table_tells_a_difference_from_none() -> None:
    write("supcon", [50.0, 52.0, 51.0])
    assert "0 of 3 runs" in table((AGAINST,), 3, 3)
    write(AGAINST, [40.0, 42.1, 40.9])
    lines = table(("supcon", AGAINST), 3, 3).splitlines()[2:]
    assert "| supcon | probe | 51.0 | 61.0 | 51.0 | n/a | +10.0 [+9.8, +10.2] | better at this budget | 60 |" in lines
    assert f"| {AGAINST} | own | 41.0 | 51.0 | 41.0 | n/a |  |  | 60 |" in lines
    write(AGAINST, [50.5, 49.0, 53.0], source="of old")
    assert "no difference seen at this budget" in table(("supcon",), 3, 3)
    assert "the method was changed since" in table((AGAINST,), 3, 3)


def test_only_what_is_missing_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ran = []

    def one(row: str, seed: int, epochs: int, train: Images, test: Images) -> dict[str, Any]:
        ran.append((row, seed, torch.bincount(train.label).tolist()))
        found = {"all": 1.0, "many": 1.0, "medium": 1.0, "few": 1.0}
        method = row.split()[0]
        return {"results": {"probe": found}, "cpu_seconds": 1, "method": method, "source": source(method)}

    monkeypatch.setattr(longtail, "one", one)
    monkeypatch.setattr(longtail, "open_images", lambda where: few())
    longtail.main(LongTail(("supcon",), seeds=2))
    longtail.main(LongTail(("supcon",), seeds=2))
    longtail.main(LongTail(seeds=2, table=True))
    assert ran == [("supcon", seed, [10, 3, 1]) for seed in range(2)]
    assert "0 of 2 runs" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no row 'past'"):
        longtail.main(LongTail(("past",)))


def test_a_run_is_measured_by_a_balanced_probe_and_by_its_own_classifier() -> None:
    images = few()
    train = images.subset([10 * c + d for c, n in enumerate((10, 8, 6, 4, 3)) for d in range(n)])
    result = longtail.one("crossentropy prior", 1, 2, train, images)
    assert set(result["results"]) == {"probe", "own"}
    for found in result["results"].values():
        assert found["protocol"]["counts"] == [10, 8, 6, 4, 3]
        assert 0 <= found["all"] <= 100
        assert found["many"] is None
    assert result["results"]["probe"]["all"] > 30
    assert result["samples"] == 31
    assert result["flags"]["seed"] == 1


def test_the_probe_is_fair_to_a_rare_class() -> None:
    generator = torch.Generator().manual_seed(0)
    label = torch.tensor([0] * 300 + [1] * 6)
    known = torch.randn(306, 2, generator=generator) + 2 * label[:, None]
    asked = torch.randn(200, 2, generator=generator) + 2 * (torch.arange(200) % 2)[:, None]
    scores, config = probe(known, label, asked, 0)
    share = float((scores.argmax(1) == 1).float().mean())
    assert 0.4 < share < 0.6
    assert len(config["held_out_accuracy"]) > 1
