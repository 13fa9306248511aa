from __future__ import annotations

import math
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.method import Clock
from nearfar.methods.byol import BYOL

from .small import form, freeze_norms, sgd, statistics, step

byol = form("byol")


def build(**arguments: float) -> BYOL:
    return cast(BYOL, byol.build(**arguments))


def pairs(method: BYOL) -> list[tuple[Tensor, Tensor]]:
    """Each parameter of the target beside the one it follows."""
    copies = [*method.slow.encoder.parameters(), *method.slow.projector.parameters()]
    return list(zip(copies, [*method.encoder.parameters(), *method.projector.parameters()], strict=True))


@pytest.mark.parametrize("at", [0, 3, 9])
def test_the_target_follows_ever_more_slowly(at: int) -> None:
    method = build(momentum=0.9)
    method.clock = Clock(step=at, steps=10, epoch=at, epochs=10)
    before = [target.clone() for target, _ in pairs(method)]
    step(method, sgd(method), byol.batch(8))
    tau = 1 - (1 - 0.9) * (math.cos(math.pi * at / 10) + 1) / 2
    assert 0.9 <= tau <= 1
    for old, (target, online) in zip(before, pairs(method), strict=True):
        torch.testing.assert_close(target, tau * old + (1 - tau) * online)


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_a_target_that_copies_and_one_that_never_moves(momentum: float) -> None:
    method = build(momentum=momentum)
    before = [target.clone() for target, _ in pairs(method)]
    step(method, sgd(method), byol.batch(8))
    for old, (target, online) in zip(before, pairs(method), strict=True):
        assert torch.equal(target, old if momentum else online)


def test_the_target_is_the_online_network_at_first_gets_no_gradient_and_has_no_predictor() -> None:
    method = build()
    assert all(torch.equal(target, online) for target, online in pairs(method))
    method(byol.batch(8)).loss.backward()
    assert all(target.grad is None and not target.requires_grad for target, _ in pairs(method))
    assert all(p.grad is not None for p in method.predictor.parameters())
    assert [name for name, _ in method.slow.named_children()] == ["encoder", "projector"]  # and no predictor


def test_the_target_takes_its_own_batch_statistics() -> None:
    method = build()
    view = byol.batch(8).views[0]
    with torch.no_grad():
        here = method.target(view)
        freeze_norms(method)
        assert not torch.allclose(method.target(view), here)
    assert statistics(method.slow.encoder)


def test_swapped_views_have_the_same_loss() -> None:
    method, batch = build().double(), byol.batch(8, dtype=torch.float64)
    swapped = Batch(batch.views[::-1], batch.index, batch.label, batch.group)
    torch.testing.assert_close(method(swapped).loss, method(batch).loss)


def test_the_loss_sums_two_directions_whatever_the_lengths() -> None:
    method, batch = build().double(), byol.batch(8, dtype=torch.float64)
    p1, p2 = (method.predict(view) for view in batch.views)
    z1, z2 = (method.target(view) for view in batch.views)
    slow = sum(
        (p[i] / p[i].norm() - z[i] / z[i].norm()).square().sum().item() / 8
        for p, z in ((p1, z2), (p2, z1))
        for i in range(8)
    )
    assert 0 < slow < 8
    torch.testing.assert_close(method(batch).loss.item(), slow)
    with torch.no_grad():
        cast(nn.Linear, method.predictor[-1]).weight.mul_(3)
    torch.testing.assert_close(method(batch).loss.item(), slow)
    with torch.no_grad():
        method.predictor[-1].weight.neg_()  # the opposite of every prediction: what was near is as far
    torch.testing.assert_close(method(batch).loss.item(), 8 - slow)


def test_the_gradient_of_a_prediction_is_orthogonal_to_it() -> None:
    method, raw = build().double(), []
    method.predictor.register_forward_hook(lambda module, args, out: raw.append(out) or out.retain_grad())
    method(byol.batch(8, dtype=torch.float64)).loss.backward()
    for p in raw:
        assert p.grad.any()
        torch.testing.assert_close((p * p.grad).sum(1), torch.zeros(8, dtype=torch.float64))
