from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from nearfar import methods
from nearfar.batch import MISSING, Batch
from nearfar.distributed import normalize
from nearfar.losses.metric import triplet
from nearfar.methods.triplet import Triplet
from nearfar.training.journal import Journal
from nearfar.training.loop import fit
from tests.evaluation.test_alarms import Plain, run, warnings
from tests.training.test_loop import Noise, Vectors, loop, optimizer

from .small import form

plain = form("triplet")
LABEL = torch.tensor([0, 1, 0, MISSING, 2, 0, 1, MISSING])


@pytest.mark.parametrize("arguments", [{}, {"mining": "batch_hard", "squared": True}, {"mining": "all", "margin": 0.7}])
def test_loss_is_that_of_unit_embeddings_of_both_views(arguments: dict[str, Any]) -> None:
    method, made = form("triplet", **arguments).build().double(), plain.batch(8, dtype=torch.float64)
    z = normalize(method.get_submodule("projector")(method.encoder(torch.cat(made.views))))
    given: dict[str, Any] = {"margin": 0.2} | arguments
    want = triplet(list(z.chunk(2)), LABEL, **given)
    torch.testing.assert_close(method(Batch(made.views, made.index, LABEL)).loss, want)


def test_one_view_of_each_sample_will_do() -> None:
    method, made = form("triplet", mining="all").build(), plain.batch(8)
    loss = method(Batch(made.views[:1], made.index, LABEL)).loss
    assert loss > 0
    nobody = method(Batch(made.views[:1], made.index, torch.full((8,), MISSING))).loss
    nobody.backward()
    assert nobody == 0
    assert not any(p.grad.any() for p in method.parameters() if p.grad is not None)


def test_its_margin_is_the_loss_of_a_network_that_makes_one_row_of_all() -> None:
    for arguments, margin in (({}, 0.2), ({"margin": 0.6, "squared": True}, 0.6), ({"soft": True}, math.log(2))):
        method = form("triplet", mining="batch_hard", **arguments).build()
        with torch.no_grad():
            for p in method.parameters():
                p.zero_()
            list(method.get_submodule("projector").parameters())[-1].fill_(1.0)
        assert method.margin == pytest.approx(margin)
        assert method(plain.batch(8)).loss.item() == pytest.approx(margin)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"mining": "batch_hard"}, ["stuck at the margin"]),
        ({"mining": "batch_hard", "soft": True}, ["stuck at the margin"]),
        ({"mining": "all"}, []),
        ({}, []),
    ],
)
def test_batch_hard_triplets_that_cannot_be_told_apart_collapse_and_are_caught(
    arguments: dict[str, Any], told: list[str], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    method = Triplet(Plain(), dim=4, **arguments)  # pyright: ignore[reportArgumentType]
    said = run(method, tmp_path, epochs=60, lr=0.05)  # the labels have nothing to do with the samples
    assert warnings(said) == told
    last = [line["loss"] for line in Journal(tmp_path / "metrics.jsonl").read() if "loss" in line][-1]
    assert (last == pytest.approx(method.margin, rel=0.01)) == bool(told)


@pytest.mark.parametrize(("name", "each"), [("triplet", 4), ("margin", 4), ("npairs", 2)])
def test_a_batch_holds_some_samples_of_each_of_its_classes(name: str, each: int) -> None:
    method = methods.load(name)(Plain(), dim=4)  # pyright: ignore[reportCallIssue, reportArgumentType]
    data = Vectors()
    fit(method, data, Noise(), optimizer("sgd", method, 0.01), loop(None, epochs=1))
    assert len(data.seen) == 5
    for rows in data.seen:
        assert list(Counter(data.label[rows].tolist()).values()) == [each] * (8 // each)
