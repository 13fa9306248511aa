from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor

from nearfar.batch import Batch
from nearfar.methods.clae import CLAE
from nearfar.methods.simclr import SimCLR

from .small import clock, form, grown, sgd, statistics, step

LOSSES = ["nt_xent", "plain", "spreading"]
every_loss = pytest.mark.parametrize("loss", LOSSES)


def build(loss: str = "nt_xent", **arguments: Any) -> CLAE:
    """Some steps from random weights, in double precision."""
    method = cast(CLAE, grown(form("clae", loss=loss), dtype=torch.float64))
    for name, value in arguments.items():
        setattr(method, name, value)
    return method


def a_batch(seed: int = 0) -> Batch:
    return form("clae").batch(8, seed=seed, dtype=torch.float64)


def embeddings(method: CLAE, batch: Batch) -> list[Tensor]:
    z = method.projector(method.embed(torch.cat(batch.views)))
    return list(torch.nn.functional.normalize(z).chunk(2))


@every_loss
def test_a_view_moves_by_eps_in_every_coordinate_with_a_slope_and_uphill(loss: str) -> None:
    batch = a_batch()
    x = batch.views[0]
    for eps in (1e-4, 0.03):
        method = build(loss, eps=eps)
        z = method.changed(x).detach()  # of the same norms as the attacked view, as in the released code
        moved = method.attack(x, None)
        assert not moved.requires_grad
        sizes = (moved - x).abs()
        assert (((sizes - eps).abs() < 1e-12) | (sizes == 0)).all()
        assert (sizes > 0).double().mean() > 0.9
        before, after = (method.loss(z, method.changed(view), None) for view in (x, moved))
        if eps < 1e-3:
            assert after > before


@every_loss
def test_the_step_is_that_of_the_numerical_slope(loss: str) -> None:
    method, batch = build(loss), a_batch()
    x = batch.views[0]
    z = method.changed(x).detach()
    step_taken = (method.attack(x, None) - x).sign()
    for at in [(0, 0, 0, 0), (3, 1, 4, 5), (7, 2, 7, 7)]:
        sides = []
        for move in (1e-5, -1e-5):
            there = x.clone()
            there[at] += move
            sides.append(method.loss(z, method.changed(there), None).detach())
        assert step_taken[at] == (sides[0] - sides[1]).sign(), at


def test_the_loss_is_of_both() -> None:
    method, batch = build(alpha=0.7), a_batch()
    z1, z2 = embeddings(method, batch)
    z = method.changed(method.attack(batch.views[0], None))
    want = method.loss(z1, z2, None) + 0.7 * method.loss(z1, z, None)
    out = method(batch)
    torch.testing.assert_close(out.loss, want)
    torch.testing.assert_close(out.log["clean"] + 0.7 * out.log["hard"], want.detach())


def test_without_changed_views_it_is_simclr() -> None:
    method, batch = build(alpha=0.0), a_batch()
    simclr = cast(SimCLR, form("simclr", dim=28, temperature=method.temperature).build()).double()
    simclr.load_state_dict({k: v for k, v in method.state_dict().items() if not k.startswith("twin")})
    torch.testing.assert_close(method(batch).loss, simclr(batch).loss)


def test_without_a_step_the_second_half_contrasts_a_view_with_itself() -> None:
    method, batch = build(eps=0.0), a_batch()
    for twin, own in ((method.twin_encoder, method.encoder), (method.twin_projector, method.projector)):
        twin.load_state_dict(own.state_dict())
    z1 = torch.nn.functional.normalize(method.projector(method.embed(batch.views[0])))
    z = method.changed(batch.views[0])
    torch.testing.assert_close(z, z1)
    torch.testing.assert_close(method.loss(z1, z, None), method.loss(z1, z1, None))


def test_changed_views_have_statistics_of_their_own() -> None:
    method, batch = build(), a_batch()
    keys = {key for key in statistics(method) if not key.startswith("twin")}
    before = {key: method.state_dict()[key].clone() for key in statistics(method)}
    embeddings(method, batch)
    method.changed(method.attack(batch.views[0], None) + 1)
    after = method.state_dict()
    clean = build()
    embeddings(clean, batch)
    for key in keys:
        assert torch.equal(after[key], clean.state_dict()[key]), key
    assert not torch.equal(before["twin_encoder.norm.running_mean"], after["twin_encoder.norm.running_mean"])


def test_twins_still_share_their_weights_after_training() -> None:
    method = build()
    method.clock = clock(80)
    before = method.twin_encoder.get_parameter("norm.weight").clone()
    step(method, sgd(method), a_batch())
    assert method.twin_encoder.get_parameter("conv.weight") is method.encoder.get_parameter("conv.weight")
    assert not torch.equal(method.twin_encoder.get_parameter("norm.weight"), before)
    assert not torch.equal(
        method.twin_encoder.get_parameter("norm.weight"), method.encoder.get_parameter("norm.weight")
    )
