from __future__ import annotations

import dataclasses
import math
from typing import cast

import pytest
import torch
from torch import Tensor

from nearfar.batch import MISSING, Batch
from nearfar.losses.epsilon import sup_info_nce
from nearfar.losses.fairness import fairkl, fairkl_released
from nearfar.losses.supervised import supcon
from nearfar.method import Method
from nearfar.methods.supinfonce import SupInfoNCE
from tests.two_ranks import Pool

from .ranks import hold_two_ranks_to_one
from .small import form

plain = form("supinfonce")
fair, released = form("supinfonce", fairkl=2.0), form("supinfonce", fairkl=2.0, penalty="released")
FORMS = ("out", "supcon")
BIAS = torch.tensor([0, 1, 1, 0, 0, 1, MISSING, 1])


def batch(bias: Tensor | None = BIAS) -> Batch:
    return dataclasses.replace(plain.batch(8, dtype=torch.float64), attribute=bias)


def embeddings(method: Method, batch: Batch) -> list[Tensor]:
    h = method.encoder(torch.cat(batch.views))
    return list(torch.nn.functional.normalize(method.get_submodule("projector")(h)).chunk(2))


def test_the_penalty_is_added_to_the_loss_with_its_weight() -> None:
    these = batch()
    for made, penalty in ((fair, fairkl), (released, fairkl_released)):
        method = made.build().double()
        z = embeddings(method, these)
        loss = sup_info_nce(z, these.label, temperature=0.1, epsilon=0.25)
        bias = penalty(z[0], these.label, BIAS)
        out = method(these)
        torch.testing.assert_close(out.loss, loss + 2 * bias)
        torch.testing.assert_close(out.log["fairkl"], bias.detach())
        assert not out.log["fairkl"].requires_grad


def test_without_a_weight_attributes_change_nothing() -> None:
    with_bias, without = (plain.build().double()(batch(bias)) for bias in (BIAS, None))
    assert torch.equal(with_bias.loss, without.loss)
    assert "fairkl" not in with_bias.log


def test_a_penalty_without_attributes_says_what_is_to_be_done() -> None:
    with pytest.raises(ValueError, match=r"--fairkl 2 .* no attribute: give the labels table a column `attribute`"):
        fair.build().double()(batch(None))
    out = fair.build().double()(batch(torch.full((8,), MISSING)))  # a step of which nothing is known
    assert out.log["fairkl"] == 0


def test_forms() -> None:
    these = batch()
    losses = {f: float(form("supinfonce", form=f, epsilon=0.0).build().double()(these).loss.detach()) for f in FORMS}
    z = [view.detach() for view in embeddings(plain.build().double(), these)]
    assert losses["supcon"] == pytest.approx(float(supcon(z, these.label, temperature=0.1)))
    assert losses["out"] < losses["supcon"]
    scaled = form("supinfonce", base_temperature=0.07).build().double()(these).loss
    torch.testing.assert_close(scaled, plain.build().double()(these).loss * 0.1 / 0.07)
    same = (these.label[:, None] == these.label) & (these.label >= 0) | torch.eye(8, dtype=torch.bool)
    negatives = 2 * (~same).sum(1)
    chance = cast(SupInfoNCE, plain.build()).chance(these)
    torch.testing.assert_close(chance, (math.exp(-0.25) + negatives).log().mean())


@pytest.mark.parametrize("made", [fair, released], ids=["kl", "released"])
def test_two_ranks_with_the_penalty_are_one(two_ranks: Pool, made) -> None:  # type: ignore[no-untyped-def]
    method = form("supinfonce").build().double()
    bias = torch.arange(16) % 5 % 2
    batches = [
        dataclasses.replace(made.batch(16, seed=seed, dtype=torch.float64, grouped=seed == 1), attribute=bias)
        for seed in range(2)
    ]
    hold_two_ranks_to_one(two_ranks, made, method, batches, tolerance=1e-10)


def test_the_penalty_takes_a_bias_out() -> None:
    """Two classes, each in two biases: trained with the penalty, the spreads of similarities agree far better."""
    bias, label = torch.arange(16) // 2 % 2, torch.arange(16) % 2
    these = dataclasses.replace(plain.batch(16), attribute=bias, label=label)
    left = []
    for weight in (0.0, 5.0):
        method = form("supinfonce", fairkl=weight).build()
        optimizer = torch.optim.Adam(method.parameters(), lr=1e-2)
        for _ in range(20):
            optimizer.zero_grad()
            method(these).loss.backward()
            optimizer.step()
        left.append(float(fairkl(embeddings(method, these)[0].detach(), label, bias)))
    assert left[1] < left[0] / 2
