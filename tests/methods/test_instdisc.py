from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch.nn import functional as F

from nearfar.batch import Batch
from nearfar.method import start_epoch
from nearfar.methods.instdisc import InstDisc

from .small import clock, form, sgd, step

instdisc = form("instdisc")


def build(**arguments: Any) -> InstDisc:
    return cast(InstDisc, form("instdisc", **arguments).build())


def test_rows_of_the_batch_are_blended_on_the_sphere_and_others_stay() -> None:
    method, batch = build(momentum=0.3), instdisc.batch(8)
    before = method.bank.rows.clone()
    out = step(method, sgd(method), batch)
    want = before.clone()
    for view in out.carry[0]:
        for i in range(8):
            want[i] = F.normalize(0.3 * want[i] + 0.7 * view[i].detach(), dim=0)
    torch.testing.assert_close(method.bank.rows, want)
    torch.testing.assert_close(method.bank.rows.norm(dim=1), torch.ones(40))
    assert torch.equal(method.bank.rows[8:], before[8:])


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_momentum_one_freezes_the_bank_and_zero_stores_the_newest_view(momentum: float) -> None:
    method = build(momentum=momentum)
    before = method.bank.rows.clone()
    out = step(method, sgd(method), instdisc.batch(8))
    torch.testing.assert_close(method.bank.rows[:8], before[:8] if momentum else out.carry[0][-1].detach())


def test_the_scale_is_that_of_the_first_batch_and_then_kept() -> None:
    method = build(temperature=0.5, proximal=0.0).double()
    rows, batch = method.bank.rows.clone(), instdisc.batch(8, dtype=torch.float64)
    picked = torch.randint(40, (method.contrast.negatives,), generator=method.clock.generator())
    out = step(method, sgd(method), batch)
    v = torch.cat(out.carry[0]).detach()
    scores = torch.cat([(v * rows[:8].repeat(2, 1)).sum(1, keepdim=True), v @ rows[picked].T], 1) / 0.5
    torch.testing.assert_close(method.log_z.exp(), 40 * scores.exp().mean())
    kept = method.log_z.clone()
    for number in range(1, 4):
        method.clock = clock(number)
        step(method, sgd(method), instdisc.batch(8, seed=number, dtype=torch.float64))
    assert torch.equal(method.log_z, kept)


def test_a_bank_may_begin_with_a_look_at_all_samples_and_only_then() -> None:
    method = build(first="look")
    rows = method.bank.rows.clone()
    look = instdisc.look(method)
    start_epoch(method, look)
    method.eval()
    want = look(method.represent).detach()
    torch.testing.assert_close(method.bank.rows, want)
    assert not torch.allclose(method.bank.rows, rows)
    assert not method.bank.seen.any()
    method.train()
    step(method, sgd(method), instdisc.batch(8))
    rows = method.bank.rows.clone()
    start_epoch(method, look)
    assert torch.equal(method.bank.rows, rows)
    noise = build()
    start_epoch(noise, look)
    assert torch.equal(noise.bank.rows, build().bank.rows)


def test_negatives_change_from_step_to_step() -> None:
    method, batch = build(contrast="infonce", proximal=0.0), instdisc.batch(8)
    first = method(batch).loss
    method.clock = clock(1)
    assert not torch.isclose(method(batch).loss, first)


def test_the_proximal_term_holds_a_sample_that_was_seen_to_its_row() -> None:
    method, batch = build(proximal=7.0).double(), instdisc.batch(8, dtype=torch.float64)
    step(method, sgd(method), Batch([v[:4] for v in batch.views], batch.index[:4], batch.label[:4]))
    with_it = method(batch)
    method.proximal = 0.0
    without = method(batch)
    moved = [
        float((view[i] - method.bank.rows[i]).square().sum().detach()) if i < 4 else 0.0
        for view in with_it.carry[0]
        for i in range(8)
    ]
    assert float((with_it.loss - without.loss).detach()) == pytest.approx(7 * sum(moved) / 16)


def test_one_view_is_enough() -> None:
    method, batch = build(proximal=0.0).double(), instdisc.batch(8, dtype=torch.float64)
    both = method(Batch([batch.views[0]] * 2, batch.index, batch.label))
    one = method(Batch(batch.views[:1], batch.index, batch.label))
    torch.testing.assert_close(both.loss, one.loss)


@pytest.mark.parametrize("contrast", ["nce", "infonce", "softmax"])
def test_samples_of_one_group_are_no_negatives(contrast: str) -> None:
    method = build(contrast=contrast, proximal=0.0).double()
    batch = instdisc.batch(8, dtype=torch.float64)
    batch.group = torch.zeros(8, dtype=torch.long)
    step(method, sgd(method), batch)
    assert method.bank.group.tolist() == [0] * 8 + [-1] * 32
    one = Batch([view[:1] for view in batch.views], batch.index[:1], batch.label[:1], batch.group[:1])
    want = method(one).loss
    method.bank.rows[1:8] *= -1
    torch.testing.assert_close(method(one).loss, want)
    method.bank.rows[8:] *= -1
    assert not torch.isclose(method(one).loss, want)


def test_the_bank_gets_no_gradient() -> None:
    method = build()
    method(instdisc.batch(8)).loss.backward()
    assert not any(buffer.requires_grad for buffer in method.buffers())
