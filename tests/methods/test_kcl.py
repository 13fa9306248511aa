from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import nn

from nearfar.batch import MISSING, Batch
from nearfar.distributed import normalize
from nearfar.method import Look, start_epoch
from nearfar.methods.kcl import KCL
from nearfar.methods.moco import MoCo

from .small import clock, form, norms, sgd, step

kcl = form("kcl")


def build(**arguments: Any) -> KCL:
    return cast(KCL, form("kcl", **arguments).build())


def filled(**arguments: Any) -> KCL:
    """With labels in the queue."""
    method = build(**arguments).double()
    method.queue.label.copy_(torch.arange(len(method.queue.label)) % 4 - 1)
    return method


def test_without_positives_or_labels_it_is_moco() -> None:
    batch = kcl.batch(8, dtype=torch.float64)
    nobody = Batch(batch.views, batch.index, torch.full((8,), MISSING))
    for method, these in ((filled(positives=0), batch), (build().double(), batch), (filled(), nobody)):
        moco = cast(MoCo, form("moco", temperature=0.07, head="linear").build()).double()
        moco.queue.keys.copy_(method.queue.keys)
        torch.testing.assert_close(method(these).loss, moco(these).loss)


@pytest.mark.parametrize("others", ["negatives", "constant"])
def test_the_loss_is_that_of_a_loop_over_the_first_keys_of_a_class(others: str) -> None:
    method, batch = filled(selection="first", others=others, positives=2), kcl.batch(8, dtype=torch.float64)
    with torch.no_grad():
        q, k = method.query(batch.views[0]), method.key(batch.views[1])
    terms = []
    for i, y in enumerate(batch.label.tolist()):
        same = [j for j, other in enumerate(method.queue.label.tolist()) if y != MISSING and other == y]
        s = torch.stack([q[i] @ k[i], *(q[i] @ old for old in method.queue.keys)]) / 0.07
        if others == "constant":
            s[[1 + j for j in same[2:]]] = 0
        terms.append(-s.log_softmax(0)[[0, *(1 + j for j in same[:2])]].mean())
    torch.testing.assert_close(method(batch).loss.detach(), torch.stack(terms).mean())


def test_all_keys_of_a_class_need_no_choice() -> None:
    batch = kcl.batch(8, dtype=torch.float64)
    losses = [
        filled(positives=99, selection=selection, others=others)(batch).loss
        for selection in ("random", "first")
        for others in ("negatives", "constant")
    ]
    assert all(torch.isclose(loss, losses[0]) for loss in losses)


def test_positives_are_drawn_anew_in_each_step() -> None:
    method, batch = filled(splits=1), kcl.batch(8, dtype=torch.float64)
    one = method(batch).loss
    assert torch.equal(method(batch).loss, one)
    method.clock = clock(1)
    assert not torch.equal(method(batch).loss, one)


def test_the_queue_begins_as_a_look_at_samples_with_their_labels() -> None:
    method, label = build(queue=16), torch.arange(40) % 3
    order: list[torch.Tensor] = []

    def through(network: Any) -> torch.Tensor:
        order.append(network(view))
        return order[-1]

    view = kcl.batch(40).views[0]
    start_epoch(method, Look(through, label))
    method.eval()
    with torch.no_grad():
        want = normalize(method.slow.projector(method.slow.encoder(view)))
    assert method.queue.count == 16
    rows = (method.queue.keys[:, None] - want).abs().sum(2).argmin(1)
    assert len(set(rows.tolist())) == 16
    torch.testing.assert_close(method.queue.keys, want[rows])
    assert torch.equal(method.queue.label, label[rows])
    before = method.queue.keys.clone()
    start_epoch(method, Look(through, label))
    assert torch.equal(method.queue.keys, before)
    assert len(order) == 1, "only an empty queue is filled"


def test_a_queue_larger_than_the_samples_keeps_noise_without_labels_behind_them() -> None:
    method, view = build(queue=50), kcl.batch(40).views[0]
    before = method.queue.keys.clone()
    start_epoch(method, Look(lambda network: network(view), torch.zeros(40, dtype=torch.long)))
    assert torch.equal(method.queue.keys[40:], before[40:])
    assert method.queue.label.tolist() == [0] * 40 + [MISSING] * 10
    noise = build(first="noise")
    start_epoch(noise, Look(lambda network: network(view)))
    assert noise.queue.count == 0


def test_keys_enter_with_their_labels_and_have_no_gradient() -> None:
    method, batch = build(queue=20), kcl.batch(8)
    out = step(method, sgd(method), batch)
    assert torch.equal(method.queue.keys[:8], out.carry[0][0])
    assert torch.equal(method.queue.label[:8], batch.label)
    assert all(p.grad is None for p in [*method.slow.encoder.parameters(), *method.slow.projector.parameters()])
    assert norms(method.slow.encoder)
    assert sum(isinstance(layer, nn.Linear) for layer in method.projector) == 1
