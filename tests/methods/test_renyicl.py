from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.methods.renyicl import RenyiCL
from nearfar.optim.schedules import cosine_ramp

from .small import OLD, Form, clock, form, freeze_norms, sgd, step

renyicl = form("renyicl")


def build(form: Form = renyicl, **arguments: float) -> RenyiCL:
    return cast(RenyiCL, form.build(**arguments).double())


def slow(sources: list[Tensor], b: Tensor) -> Tensor:
    logits = [a @ b.T / 0.5 for a in sources]
    p = torch.cat([s.diagonal() for s in logits])
    n = torch.cat([s[~torch.eye(len(b), dtype=torch.bool)] for s in logits])
    mixed = 2**-16 * (2 * p).exp().mean() + (1 - 2**-16) * (2 * n).exp().mean()
    return mixed.log() / 2 - p.exp().mean().log()


def test_loss_is_that_of_the_formula_for_both_targets() -> None:
    method, batch = build(), renyicl.batch(6, dtype=torch.float64)
    a = [method.predict(view) for view in batch.views]
    b = [method.target(view) for view in batch.views]
    want = slow([a[1]], b[0]) + slow([a[0]], b[1])
    torch.testing.assert_close(method(batch).loss, want)


def test_small_crops_predict_both_targets_and_are_none() -> None:
    method, batch = build(), renyicl.batch(6, dtype=torch.float64)
    small = [view[:, :, :5, :5] for view in batch.views]
    views = [*batch.views, *small]
    a = [method.predict(view) for view in views]
    b = [method.target(view) for view in batch.views]
    want = slow([a[1], a[2], a[3]], b[0]) + slow([a[0], a[2], a[3]], b[1])
    torch.testing.assert_close(method(Batch(views, batch.index, batch.label)).loss, want)


def test_targets_have_no_gradient_and_follow() -> None:
    method = build(momentum=0.6)
    method.clock = clock(OLD)
    pairs = [
        *zip(method.slow.encoder.parameters(), method.encoder.parameters(), strict=True),
        *zip(method.slow.projector.parameters(), method.projector.parameters(), strict=True),
    ]
    before = [target.clone() for target, _ in pairs]
    step(method, sgd(method), renyicl.batch(8, dtype=torch.float64))
    momentum = cosine_ramp(0.6, method.clock.progress)
    assert 0.6 < momentum < 1
    for old, (target, source) in zip(before, pairs, strict=True):
        assert target.grad is None
        torch.testing.assert_close(target, momentum * old + (1 - momentum) * source)
    assert any(not torch.equal(old, target) for old, (target, _) in zip(before, pairs, strict=True))


@pytest.mark.parametrize("gamma", [1.0, 2.0])
def test_equal_embeddings_have_loss_zero(gamma: float) -> None:
    method, batch = build(gamma=gamma), renyicl.batch(6, dtype=torch.float64)
    last = method.predictor[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    torch.testing.assert_close(method(batch).loss.item(), 0.0, atol=1e-12, rtol=0)


def test_swapped_views_have_the_same_loss() -> None:
    method, batch = build(), renyicl.batch(6, dtype=torch.float64)
    freeze_norms(method)
    swapped = Batch(batch.views[::-1], batch.index, batch.label)
    torch.testing.assert_close(method(swapped).loss, method(batch).loss)


def test_the_predictor_is_the_networks_alone() -> None:
    names = {name.split(".")[0] for name, p in build().named_parameters() if not p.requires_grad}
    assert names == {"slow", "projector"}  # of the projector its last norm
    assert all(p.requires_grad for p in build().predictor.parameters())
