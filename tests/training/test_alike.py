"""What two processes must have in common, and what they are told where they have not."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nearfar import distributed
from nearfar.data.digests import digests, fingerprint
from nearfar.modalities.image.samples import open_images
from nearfar.training import plan as plans
from nearfar.training.alike import insist_alike, insist_same_samples_everywhere
from tests.tiny import SETTINGS, tiny_images
from tests.two_ranks import Pool


def _samples(case: str) -> str:
    """What this rank is told, where the second one differs."""
    pixels, labels = tiny_images(1500), [f"c{i % 4}" for i in range(1500)]
    layer = nn.Linear(2, 2)
    nn.init.constant_(layer.weight, distributed.rank() if case == "weights" else 0.0)
    nn.init.zeros_(layer.bias)
    if distributed.rank() == 1:
        if case == "pixel":
            pixels[1200, 3, 3] ^= 1
        elif case == "label":
            labels[1300] = "c2"
        elif case == "count":
            pixels, labels = pixels[:-1], labels[:-1]
    data = open_images((pixels, labels))
    if case == "group" and distributed.rank() == 1:
        data = dataclasses.replace(data, group=torch.arange(1500))
    known = digests(data)
    try:
        insist_same_samples_everywhere(data, known, fingerprint(known, data), layer)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("case", "told"),
    [
        ("nothing", []),
        ("pixel", ["rank 0 has 1,500, rank 1 has 1,500", "sample 1200: '1200' (c0, contents "]),
        ("label", ["sample 1300: '1300' (c0,", "'1300' (c2,"]),
        ("count", ["rank 1 has 1,499", "sample 1499: '1499' (c3,", "none on rank 1"]),
        ("group", ["sample 0: "]),
        ("weights", ["first weights"]),
    ],
)
def test_samples_and_weights(two_ranks: Pool, case: str, told: list[str]) -> None:
    first, second = two_ranks.run(_samples, case)
    assert first == second
    assert bool(first) == bool(told)
    assert all(part in first for part in told), first


def _started(flags: list[dict[str, Any]], resume: list[bool], out: list[str]) -> str:
    rank = distributed.rank()
    plan = plans.make(flags[rank].pop("method", "simclr"), tiny_images(), None, SETTINGS | flags[rank])
    try:
        insist_alike(plan, Path(out[rank]), resume=resume[rank])
    except ValueError as error:
        return str(error)
    return ""


def test_flags_and_directory(two_ranks: Pool, tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".lock").write_text(name)
    one, other = str(tmp_path / "one"), str(tmp_path / "other")

    def told(flags: list[dict[str, Any]], resume: tuple[bool, bool] = (False, False), second: str = one) -> str:
        first, again = two_ranks.run(_started, flags, list(resume), [one, second])
        assert first == again
        return first

    assert not told([{"device": "cpu"}, {"device": "auto"}])
    assert "--lr is 0.1 on rank 0, 0.2 on rank 1; --temperature is 0.5" in told(
        [{"lr": 0.1, "temperature": 0.5}, {"lr": 0.2, "temperature": 1.0}]
    )
    assert "--resume is False on rank 0, True on rank 1" in told([{}, {}], (False, True))
    assert "METHOD is 'simclr' on rank 0, 'moco' on rank 1" in told([{}, {"method": "moco"}])
    assert f"rank 1 does not find in --out {other!r} the lock" in told([{}, {}], second=other)
