from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch.nn import functional as F

from nearfar.batch import MISSING, Batch
from nearfar.distributed import normalize
from nearfar.losses.parametric import parametric
from nearfar.methods.paco import PaCo

from .small import form, sgd, step

paco = form("paco")


def build(**arguments: Any) -> PaCo:
    return cast(PaCo, form("paco", **arguments).build())


def test_queries_are_anchors_and_keys_and_queue_are_only_found() -> None:
    method, batch = build().double(), paco.batch(8, dtype=torch.float64)
    with torch.no_grad():
        method.queue.label.copy_(torch.arange(len(method.queue.label)) % 3)
        h = method.encoder(batch.views[0])
        q, logits = normalize(method.projector(h)), method.classifier(h) + method.classifier.log_prior
        queue = method.queue.keys, method.queue.label, method.queue.group
        k = method.key(batch.views[1])
        want = parametric(q, logits, batch.label, k, queue, temperature=0.2, alpha=0.05)
    torch.testing.assert_close(method(batch).loss.detach(), want)


def test_with_centers_alone_it_is_the_balanced_softmax() -> None:
    batch = paco.batch(8)
    known = batch.label >= 0
    for prior in (True, False):
        method = build(alpha=0.0, gamma=0.0, prior=prior)
        logits = method.classify(batch.views[0])[known]
        want = F.cross_entropy(logits + method.classifier.log_prior, batch.label[known])
        torch.testing.assert_close(method(batch).loss, want)
    assert not method.classifier.log_prior.any()


def test_scale_divides_logits_and_prior_and_classify_gives_neither() -> None:
    batch = paco.batch(8)
    plain, scaled = build(alpha=0.0, gamma=0.0), build(alpha=0.0, gamma=0.0, scale=2.0)
    known = batch.label >= 0
    logits = plain.classify(batch.views[0])[known]
    want = F.cross_entropy((logits + plain.classifier.log_prior) / 2, batch.label[known])
    torch.testing.assert_close(scaled(batch).loss, want)
    assert torch.equal(logits, plain.classifier(plain.encoder(batch.views[0]))[known])


def test_the_queue_holds_the_keys_of_the_batch_with_their_labels() -> None:
    method, batch = build(queue=20), paco.batch(8, grouped=True)
    assert set(method.queue.label.tolist()) == {MISSING}
    out = step(method, sgd(method), batch)
    assert torch.equal(method.queue.keys[:8], out.carry[0][0])
    assert torch.equal(method.queue.label[:8], batch.label)
    assert batch.group is not None
    assert torch.equal(method.queue.group[:8], batch.group)
    assert set(method.queue.label[8:].tolist()) == {MISSING}


def test_keys_of_the_class_in_the_queue_pull() -> None:
    method, batch = build(alpha=1.0).double(), paco.batch(8, dtype=torch.float64)
    losses = []
    for share in (0.0, 1.0):
        with torch.no_grad():
            q = normalize(method.projector(method.encoder(batch.views[0])))
            here = q[batch.label == 0].mean(0)
            method.queue.keys.copy_(normalize(torch.lerp(-here, here, share)[None]).expand_as(method.queue.keys))
            method.queue.label.fill_(0)
        losses.append(float(method(Batch(batch.views, batch.index, torch.zeros(8).long())).loss.detach()))
    assert losses[1] < losses[0]


@pytest.mark.parametrize("alpha", [0.0, 0.05])
def test_samples_without_a_label_are_told_from_samples_alone(alpha: float) -> None:
    method, batch = build(alpha=alpha), paco.batch(8)
    nobody = Batch(batch.views, batch.index, torch.full((8,), MISSING))
    loss = method(nobody).loss
    loss.backward()
    assert (loss == 0) == (alpha == 0)
    assert method.classifier.weight.grad is not None
    assert not method.classifier.weight.grad.any()
    moved = sum(float(p.grad.abs().sum()) for p in method.encoder.parameters() if p.grad is not None)
    assert (moved > 0) == (alpha > 0)
