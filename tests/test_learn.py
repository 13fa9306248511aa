"""Learning checks: SimCLR's always, and those of methods whose file changed since their committed result."""

from __future__ import annotations

import json

import pytest

from benchmarks import learn
from nearfar import methods


@pytest.mark.learn
@pytest.mark.parametrize("name", sorted({"simclr", *filter(learn.stale, methods.names())}))
def test_a_method_learns_from_drawings(name: str) -> None:
    result = learn.check(name, epochs=1 if name == "simclr" else 3)  # one pass is plenty for SimCLR
    assert result["learnt"], f"{name}: untrained {result['untrained']}, trained {result['trained']}, {result['gain']}"


@pytest.mark.parametrize("name", methods.names())
def test_every_method_has_a_committed_result_that_it_learnt(name: str) -> None:
    path = learn.RESULTS / f"{name}.json"
    assert path.exists(), f"run python -m benchmarks.learn {name} and commit {path.name}"
    assert json.loads(path.read_text())["learnt"]
