from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from benchmarks.bench import memory
from benchmarks.cost import Size

from benchmarks import cost

TINY = Size(batch=8, samples=32, turns=2, seconds=0.01)


@pytest.mark.parametrize(
    ("name", "views", "left_out"), [("simclr", 2, 0), ("pcl", 2, 0), ("looc", 4, 0), ("relicv2", 2, 2)]
)
def test_a_method_is_measured_beside_simclr(name: str, views: int, left_out: int) -> None:
    found = json.loads(json.dumps(cost.cost(name, TINY)))
    assert (found["method"], found["batch"], found["samples"], found["turns"]) == (name, 8, 32, 2)
    assert (found["views"], found["crops_left_out"]) == (views, left_out)
    assert found["ratio"]["low"] <= found["ratio"]["median"] <= found["ratio"]["high"]
    assert found["step_ms"].keys() == {"method", "simclr"}
    assert all(spent > 0 for spent in found["step_ms"].values())
    later = found["epoch_ms_per_sample"]["later"]
    assert later > 0 if name == "pcl" else later == 0  # the others do nothing before an epoch


def test_a_method_has_begun_all_it_begins_late() -> None:
    images, batches = cost.given("pcl", TINY)
    method = cost.built("pcl", TINY)
    assert cost.before_epoch(method, images, cost.labels("pcl", TINY), cost.LATE) > 0
    assert method.clock.epoch == cost.LATE
    assert method.clock.progress == 0.5
    before = [p.detach().clone() for p in method.parameters()]
    cost.stepping(method, batches)()
    assert any(not torch.equal(a, b) for a, b in zip(before, method.parameters(), strict=True))
    assert method.clock.step == cost.LATE * 4 + 1


@pytest.mark.parametrize(("name", "views"), [("crossentropy", 1), ("kcl", 2), ("opencon", 2)])
def test_methods_that_ask_for_counts_or_look_at_labels_are_measured(name: str, views: int) -> None:
    found = cost.cost(name, TINY)
    assert found["views"] == views
    assert found["step_ms"]["simclr"] > 0


def test_labels_are_for_methods_that_need_them() -> None:
    for name, classes in (("simclr", {cost.MISSING}), ("supcon", set(range(cost.CLASSES)))):
        _, batches = cost.given(name, TINY)
        assert len(batches) == 2
        assert {int(label) for batch in batches for label in batch.label} <= classes


def test_the_peak_is_that_of_the_work() -> None:
    size = 40 * 2**20

    def prepare() -> Callable[[], object]:
        kept = torch.ones(size // 4)  # not counted
        return lambda: (torch.ones(size // 4) + kept.sum()).sum()  # two of that size at once

    assert memory.extra(prepare, lambda: torch.ones(4).sum()) == pytest.approx(80, rel=0.25)


def test_the_peak_grows_with_the_batch() -> None:
    code = "from benchmarks.cost import Size, peak; print(*(peak('simclr', Size(n, 256)) for n in (16, 128)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    small, large = map(float, done.stdout.split())
    assert 0 <= small < large


def test_a_result_is_stale_by_its_source_and_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "RESULTS", tmp_path)
    assert cost.stale("simclr")
    known = {"source": cost.source("simclr"), "arguments": cost.plan("simclr").arguments}
    for changed, stale in (({}, False), ({"source": "of old"}, True), ({"arguments": {"dim": 3}}, True)):
        (tmp_path / "simclr.json").write_text(json.dumps(known | changed))
        assert cost.stale("simclr") == stale


def test_only_what_is_stale_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "RESULTS", tmp_path)
    monkeypatch.setattr(cost, "Size", lambda: TINY)
    monkeypatch.setattr(cost, "fresh_peak", lambda name: 3.5)
    monkeypatch.setattr(cost.methods, "names", lambda: ["barlow", "simclr"])
    cost.main(cost.Ask(("barlow",)))
    written = (tmp_path / "barlow.json").stat().st_mtime_ns
    cost.main(cost.Ask())
    assert (tmp_path / "barlow.json").stat().st_mtime_ns == written
    found = json.loads((tmp_path / "simclr.json").read_text())
    assert found["MiB"] == {"method": 3.5, "simclr": 3.5}
    assert found["command"] == "python -m benchmarks.cost simclr"
    assert "date" in found["environment"]
