from __future__ import annotations

from typing import Any, cast

import torch

from nearfar.methods.mochi import MoCHi
from nearfar.methods.moco import MoCo

from .small import OLD, clock, form

mochi = form("mochi")


def build(**arguments: Any) -> MoCHi:
    return cast(MoCHi, form("mochi", **arguments).build())


def moco() -> MoCo:
    return cast(MoCo, form("moco").build())


def test_before_its_epoch_it_is_moco() -> None:
    method, batch = build(start=3), mochi.batch(8)
    want = moco()(batch).loss
    for epoch, same in ((0, True), (2, True), (3, False)):
        method.clock = clock(epoch)
        reference = moco()
        reference.clock = clock(epoch)
        want = reference(batch).loss
        assert torch.equal(method(batch).loss, want) == same


def test_without_mixtures_it_is_moco_and_with_them_the_loss_is_higher() -> None:
    batch, losses = mochi.batch(8), []
    for mixed, own in ((0, 0), (8, 0), (8, 8)):
        method = build(mixed=mixed, mixed_query=own, start=0)
        losses.append(float(method(batch).loss.detach()))
    torch.testing.assert_close(losses[0], float(moco()(batch).loss.detach()))
    assert losses[0] < losses[1] < losses[2]


def test_mixtures_differ_from_step_to_step_and_keys_get_no_gradient() -> None:
    method, batch = build(splits=1), mochi.batch(8)
    losses = []
    for time in (OLD, OLD + 1):
        method.clock = clock(time)
        loss = method(batch).loss
        losses.append(float(loss.detach()))
    loss.backward()
    assert losses[0] != losses[1]
    assert all(p.grad is None for p in [*method.slow.encoder.parameters(), *method.slow.projector.parameters()])


def test_the_gradient_of_a_query_is_orthogonal_to_it() -> None:
    method, raw = build(start=0).double(), []
    method.projector.register_forward_hook(lambda module, args, out: raw.append(out) or out.retain_grad())
    method(mochi.batch(8, dtype=torch.float64)).loss.backward()
    assert raw[0].grad.any()
    torch.testing.assert_close((raw[0] * raw[0].grad).sum(1), torch.zeros(8, dtype=torch.float64))


def test_more_hard_keys_than_the_queue_holds_are_all_of_it() -> None:
    assert build(hardest=10**6, queue=20, start=0)(mochi.batch(8)).loss.isfinite()
