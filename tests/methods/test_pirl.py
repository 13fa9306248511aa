from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.distributed import normalize
from nearfar.losses.pairwise import info_nce
from nearfar.losses.pretext_invariant import told_apart
from nearfar.methods.pirl import PIRL

from .small import Form, clock, copied_state, form, freeze_norms, sgd, step

pirl = form("pirl")


def build(form: Form = pirl, **arguments: Any) -> PIRL:
    return cast(PIRL, form.build(**arguments))


def look(method: PIRL, v: Tensor, index: Tensor, purpose: int) -> Tensor:
    """The loss of each row in turn, against draws of which "paper" exchanges those that are the row's own."""
    paper, generator = method.contrast.form == "paper", method.clock.generator(purpose)
    draws = torch.randint(40, (method.contrast.negatives,), generator=generator)
    others = (draws + torch.randint(1, 40, draws.shape, generator=generator)) % 40
    losses = []
    for row, i in zip(v, index.tolist(), strict=True):
        negatives = torch.where(draws == i, others, draws) if paper else draws
        assert i in draws.tolist()  # or nothing is tested
        assert (i in negatives.tolist()) != paper
        loss = told_apart if paper else info_nce
        losses.append(loss(row[None], method.bank.rows[i, None], method.bank.rows[negatives], temperature=0.07))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("contrast", ["paper", "infonce"])
def test_patches_and_images_both_look_for_the_same_row_among_draws_of_their_own(contrast: str) -> None:
    method = build(form("pirl", contrast=contrast, weight=0.3, negatives=400)).double()
    batch = pirl.batch(6, dtype=torch.float64)
    freeze_norms(method)
    v, patches = normalize(method.projector(method.encoder(batch.views[0]))), method.shuffled(batch.views[1])
    want = 0.3 * look(method, patches, batch.index, 2) + 0.7 * look(method, v, batch.index, 3)
    torch.testing.assert_close(method(batch).loss, want)
    assert not torch.allclose(look(method, v, batch.index, 2), look(method, v, batch.index, 3))


@pytest.mark.parametrize("contrast", ["paper", "nce", "infonce"])
def test_loss_is_linear_in_the_weight(contrast: str) -> None:
    method, batch = build(form("pirl", contrast=contrast)).double(), pirl.batch(6, dtype=torch.float64)
    values = []
    for method.weight in (0.0, 0.5, 1.0):
        values.append(float(method(batch).loss.detach()))
    assert values[1] == pytest.approx((values[0] + values[2]) / 2)
    assert values[0] != pytest.approx(values[2])


def test_the_bank_is_made_of_whole_images_alone() -> None:
    method, batch = build(weight=1.0, momentum=0.25), pirl.batch(8)
    before = method.bank.rows.clone()
    optimizer = sgd(method)
    out = step(method, optimizer, batch)
    assert not any(
        cast(Tensor, p.grad).any() for p in method.projector.parameters()
    )  # weight 1: no gradient of the image's branch
    (v,) = out.carry[0]
    want = normalize(0.25 * before[batch.index] + 0.75 * v)
    torch.testing.assert_close(method.bank.rows[batch.index], want)
    rest = [i for i in range(40) if i not in batch.index.tolist()]
    assert torch.equal(method.bank.rows[rest], before[rest])
    other = build(weight=1.0, momentum=0.25)
    views = [batch.views[0], torch.rand_like(batch.views[1])]
    again = other(Batch(views, batch.index, batch.label))
    torch.testing.assert_close(again.carry[0][0], v)


def test_patches_do_not_move_statistics_and_images_do() -> None:
    method, batch = build(), pirl.batch(8)
    method(batch)
    got = copied_state(method.encoder)
    alone = build()
    alone.embed(batch.views[0])
    for name, value in alone.encoder.state_dict().items():
        assert torch.equal(got[name], value), name


def test_order_changes_the_patches_embedding_only_by_the_places_of_codes() -> None:
    method, view = build().double(), pirl.batch(4, dtype=torch.float64).views[1]
    freeze_norms(method)
    first = method.shuffled(view)
    torch.testing.assert_close(method.shuffled(view), first)
    method.clock = clock(1)
    assert not torch.allclose(method.shuffled(view), first)
    with torch.no_grad():  # a head that gives all places one weight feels no order
        whole = cast(nn.Linear, method.patches.whole)
        whole.weight.copy_(torch.eye(whole.out_features).repeat(1, 9))
        method.share, method.clock = 1.0, clock(0)
        first = method.shuffled(view)
        method.clock = clock(1)
        torch.testing.assert_close(method.shuffled(view), first)


def test_the_constant_comes_from_the_patches_of_the_first_batch_and_stays() -> None:
    method = build(form("pirl", contrast="nce"))
    optimizer = sgd(method)
    out = step(method, optimizer, pirl.batch(8))
    z = method.log_z.clone()
    assert z != 0
    assert torch.equal(out.carry[1], z)
    method.clock = clock(1)
    step(method, optimizer, pirl.batch(8, seed=1))
    assert torch.equal(method.log_z, z)
