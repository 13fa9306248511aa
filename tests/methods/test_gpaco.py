from __future__ import annotations

from typing import Any, cast

import torch
from torch.nn import functional as F

from nearfar.batch import MISSING, Batch
from nearfar.losses.supervised import supcon
from nearfar.methods.gpaco import GPaCo

from .small import form, freeze_norms, sgd, step

gpaco = form("gpaco")


def build(**arguments: Any) -> GPaCo:
    return cast(GPaCo, form("gpaco", **arguments).build())


def test_without_centers_and_queue_it_is_supcon() -> None:
    method, batch = build(beta=0.0, scale=1e-3).double(), gpaco.batch(8, dtype=torch.float64)
    with torch.no_grad():
        method.classifier.weight.zero_()
        method.classifier.bias.fill_(-10)
    method.queue.keys = method.queue.keys[:0]
    method.queue.label, method.queue.group = method.queue.label[:0], method.queue.group[:0]
    h = method.encoder(torch.cat(batch.views))
    z = F.normalize(method.projector(h), dim=1)
    want = supcon(list(z.chunk(2)), batch.label, temperature=0.2)
    torch.testing.assert_close(method(batch).loss, want)


def test_with_centers_alone_it_is_cross_entropy_of_both_views() -> None:
    method, batch = build(alpha=0.0, gamma=0.0, prior=False, smoothing=0.1), gpaco.batch(8)
    known = batch.label >= 0
    logits = method.classify(torch.cat(batch.views))[known.repeat(2)]
    target = torch.where(F.one_hot(batch.label[known].repeat(2), 3).bool(), 0.9, 0.05)
    torch.testing.assert_close(method(batch).loss, F.cross_entropy(logits, target))


def test_views_may_be_swapped_and_samples_permuted() -> None:
    method, batch = build().double(), gpaco.batch(8, dtype=torch.float64)
    freeze_norms(method)
    want = method(batch).loss
    order = torch.tensor([7, 2, 4, 0, 1, 3, 6, 5])
    views = [view[order] for view in batch.views[::-1]]
    torch.testing.assert_close(method(Batch(views, batch.index[order], batch.label[order])).loss, want)


def test_the_second_views_enter_the_queue_and_both_have_a_gradient() -> None:
    method, batch = build(queue=20), gpaco.batch(8)
    both: list[torch.Tensor] = []
    method.projector.register_forward_hook(lambda module, args, out: both.append(out) or out.retain_grad())
    step(method, sgd(method), batch)
    assert torch.equal(method.queue.keys[:8], F.normalize(both[0], dim=1)[8:])
    assert torch.equal(method.queue.label[:8], batch.label)
    assert set(method.queue.label[8:].tolist()) == {MISSING}
    grad = both[0].grad
    assert grad is not None
    assert all(half.any() for half in grad.chunk(2))
