from __future__ import annotations

from pathlib import Path

import pytest

from nearfar.training import pace as pacing
from nearfar.training import plan as plans
from nearfar.training.build import open_samples
from nearfar.training.pace import Pace, pace
from tests.tiny import array_file


def test_a_run_takes_its_steps_and_what_is_done_after_each_epoch() -> None:
    known = Pace(step=0.25, epoch=0.5, per_epoch=6, batch=8, memory=0.0, device="cpu")
    assert known.seconds(10) == 20
    assert [known.epochs(seconds) for seconds in (1.9, 2.0, 7.9, 8.0)] == [0, 1, 3, 4]


def test_steps_are_timed_on_the_run_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of a step of many samples, where it would be long, follows from that of two smaller ones."""
    flags = {"encoder": "conv4", "batch": 32, "labels": "none"}
    plan = plans.make("simclr", str(array_file(tmp_path / "a.npz", 70)), None, flags)
    samples = open_samples(plan, say=lambda text: None)
    sizes: list[int] = []

    def timed(plan: object, built: object, batch: int, device: object) -> float:
        sizes.append(batch)
        return 1.0 + 0.25 * batch

    monkeypatch.setattr(pacing, "_timed", timed)
    monkeypatch.setattr(pacing, "LONG", 100.0)
    found = pace(plan, samples)
    assert (found.step, found.per_epoch, found.batch, sizes) == (9.0, 2, 32, [16, 32])
    assert found.memory > 2 * 32 * 16 * 16 * 4  # more than the views themselves
    monkeypatch.setattr(pacing, "LONG", 1.0)
    monkeypatch.setattr(pacing, "SMALL", 8)
    assert pace(plan, samples).step == 9.0
    assert sizes[2:] == [8, 24]


def test_real_steps_and_epochs_are_timed(tmp_path: Path) -> None:
    plan = plans.make("moco", str(array_file(tmp_path / "a.npz", 40)), None, {"encoder": "conv4", "batch": 20})
    found = pace(plan, open_samples(plan, say=lambda text: None))
    assert (found.per_epoch, found.batch, found.device) == (2, 20, "cpu")
    assert found.step > 0
    assert found.epoch >= 0
