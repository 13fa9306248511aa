from __future__ import annotations

from itertools import cycle
from typing import cast

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import Batch
from nearfar.clustering.sinkhorn import sinkhorn
from nearfar.memory.queue import Queue
from nearfar.methods.swav import SwAV

from .small import OLD, Form, clock, form, grown, sgd, step

swav, queued = form("swav"), form("swav", queue=16)


def build(form: Form = swav, **arguments: int) -> SwAV:
    return cast(SwAV, form.build(**arguments))


def queues(method: SwAV) -> list[Queue]:
    """Of the first view and of the second."""
    return [module for module in method.modules() if isinstance(module, Queue)]


def crops(n: int, small: int) -> Batch:
    """Two crops of 8 px and some of 4 px."""
    batch = swav.batch(n)
    batch.views += [swav.batch(n, seed=seed).views[0][..., :4, :4] for seed in range(small)]
    return batch


def scores(method: SwAV, batch: Batch) -> list[Tensor]:
    """Of each crop by itself, which frozen norms allow."""
    return [method.prototypes(F.normalize(method.projector(method.encoder(view)))) for view in batch.views]


def swapped(scores: list[Tensor], codes: list[Tensor]) -> Tensor:
    """The loss as the sheet has it, crop by crop and sample by sample."""
    means = []
    for i, code in enumerate(codes):
        for v, score in enumerate(scores):
            if v != i:
                log = [(row / 0.1).log_softmax(0) for row in score]
                means.append(torch.stack([-(q * p).sum() for q, p in zip(code, log, strict=True)]).mean())
    return torch.stack(means).mean()


@pytest.mark.parametrize("small", [0, 3])
def test_loss_is_the_mean_of_the_swapped_cross_entropies(small: int) -> None:
    method, batch = build().eval(), crops(6, small)
    each = scores(method, batch)
    torch.testing.assert_close(method(batch).loss, swapped(each, [sinkhorn(score.detach()) for score in each[:2]]))


def test_small_crops_have_no_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    method, asked = build(), []
    codes = method.codes
    monkeypatch.setattr(method, "codes", lambda scores, queue: asked.append(scores.shape) or codes(scores, queue))
    out = method(crops(6, 4))
    assert asked == [(6, len(method.prototypes.weight))] * 2
    assert len(out.carry) == 2


def test_no_gradient_flows_into_the_codes() -> None:
    method, batch = build().eval(), swav.batch(6)
    each = scores(method, batch)
    want = swapped(each, [sinkhorn(score.detach()) for score in each])
    trained = [p for p in method.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(want, trained)
    torch.testing.assert_close(torch.autograd.grad(method(batch).loss, trained), gradients)


def test_prototypes_stand_on_the_sphere_after_each_step_and_still_in_the_first_epochs() -> None:
    method = build(freeze=2)
    optimizer = sgd(method)
    for epoch in range(5):
        before = method.prototypes.weight.detach().clone()
        method.clock = clock(epoch)
        step(method, optimizer, swav.batch(8, seed=epoch))
        after = method.prototypes.weight.detach()
        torch.testing.assert_close(after.norm(dim=1), torch.ones(len(after)))
        # Only renormalized while frozen, and not moved by a momentum of the optimizer either.
        assert torch.allclose(before, after, rtol=0, atol=1e-6) == (epoch < 2)


def test_the_order_of_prototypes_and_of_samples_does_not_matter() -> None:
    method, batch = build().double(), swav.batch(8, dtype=torch.float64)
    want = method(batch).loss.item()
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    shuffled = Batch([view[order] for view in batch.views], batch.index, batch.label, batch.group)
    assert method(shuffled).loss.item() == pytest.approx(want, rel=1e-12)
    with torch.no_grad():
        method.prototypes.weight.copy_(method.prototypes.weight.flip(0))
    assert method(batch).loss.item() == pytest.approx(want, rel=1e-12)


def test_equal_prototypes_have_the_loss_of_chance() -> None:
    method = build()
    with torch.no_grad():
        method.prototypes.weight.copy_(method.prototypes.weight[:1].expand_as(method.prototypes.weight))
    assert method(swav.batch(8)).loss.item() == pytest.approx(method.chance(swav.batch(8)), rel=1e-5)


def test_the_queue_collects_from_its_epoch_on_and_joins_when_it_is_full() -> None:
    with_queue, without = build(queued, queue_start=2), build()
    batch, optimizer = swav.batch(8), sgd(with_queue)
    counts = []
    for epoch in range(5):
        with_queue.clock = without.clock = clock(epoch)
        without.load_state_dict({k: v for k, v in with_queue.state_dict().items() if not k.startswith("queue")})
        alike = torch.equal(with_queue(batch).loss, without(batch).loss)
        counts.append((*(int(queue.count) for queue in queues(with_queue)), alike))
        step(with_queue, optimizer, swav.batch(8, seed=epoch))
    assert counts == [(0, 0, True), (0, 0, True), (0, 0, True), (8, 8, True), (16, 16, False)]


def test_the_queue_holds_the_embeddings_of_the_two_assigned_crops() -> None:
    method, batch = build(queued), crops(8, 2)
    method.clock = clock(OLD)
    out = method(batch)
    method.after_step(out)
    for queue, z in zip(queues(method), out.carry, strict=True):
        assert torch.equal(queue.keys[:8], z)
        torch.testing.assert_close(z.norm(dim=1), torch.ones(8))


def test_a_full_queue_is_felt_through_the_codes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    method, batch = cast(SwAV, grown(queued)).eval(), swav.batch(8)
    each = scores(method, batch)
    codes = []
    for score, queue in zip(each, queues(method), strict=True):
        both = torch.cat([queue.keys @ method.prototypes.weight.T, score]).detach()
        codes.append(sinkhorn(both)[-8:])
    torch.testing.assert_close(method(batch).loss, swapped(each, codes))
    before = method(batch).loss
    for queue in queues(method):
        queue.keys.copy_(queue.keys.flip(1))
    assert not torch.isclose(method(batch).loss, before)
    fixed = cycle(codes)
    monkeypatch.setattr(method, "codes", lambda scores, queue: next(fixed))
    torch.testing.assert_close(method(batch).loss, before)
