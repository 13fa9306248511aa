from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import MISSING, Batch
from nearfar.clustering.confidence import confidence
from nearfar.clustering.kmeans import kmeans
from nearfar.distributed import normalize
from nearfar.method import start_epoch
from nearfar.methods.ifnd import IFND
from nearfar.methods.moco import MoCo

from .small import OLD, Form, clock, form, freeze_norms, sgd, step

ifnd = form("ifnd", clusters=2, granularities=2, queue=20)


def build(form: Form = ifnd, *, time: int = 3 * OLD, **arguments: Any) -> IFND:
    """In double precision, after a clustering and three steps; the queue has been filled."""
    method = cast(IFND, form.build(**arguments)).double()
    optimizer = sgd(method)
    for number in range(3):
        method.clock = clock(time + number)
        start_epoch(method, form.look(method))
        step(method, optimizer, batch(8, seed=number))
    freeze_norms(method)
    return method


def batch(n: int, *, seed: int) -> Batch:
    """Samples 3, 4, ... for seed 1, and so on, all with classes: keys of most samples are in the queue twice."""
    made = ifnd.batch(n, seed=seed, dtype=torch.float64)
    return Batch(made.views, made.index + 3 * seed, (made.index + 3 * seed) % 3)


def test_the_queue_knows_of_which_sample_each_key_is() -> None:
    method = build()
    for slot in range(20):
        number = slot if slot >= 4 else slot + 20  # of 24 keys the first 4 have given way
        sample = number % 8 + 3 * (number // 8)
        assert method.keys[:, slot].tolist() == [sample, sample % 3]
    small = build(queue=5)
    step(small, sgd(small), batch(8, seed=0))
    assert sorted(small.keys[0].tolist()) == [3, 4, 5, 6, 7]


def test_symmetric_puts_each_sample_in_twice() -> None:
    method = cast(IFND, form("ifnd", queue=16, symmetric=True).build())
    step(method, sgd(method), form("ifnd").batch(8))
    assert method.keys[0].tolist() == [*range(8)] * 2


def test_the_most_confident_are_accepted_and_ever_more_of_them() -> None:
    method, accepted = build(), []
    x = ifnd.look(method.eval())(lambda view: normalize(method.slow.projector(method.slow.encoder(view)))).detach()
    for time in (0, OLD, 2 * OLD, 4 * OLD):
        method.label.fill_(MISSING)
        method.clock = clock(time)
        start_epoch(method.eval(), ifnd.look(method))
        rate = time / (4 * OLD)
        accepted.append(method.label >= 0)
        assert (accepted[-1].sum(1) == round(40 * rate)).all()
        for m, label in enumerate(method.label):
            found = kmeans(x, method.sizes[m], seed=m)
            kappa, kept = confidence(x, found, 0.2), accepted[-1][m]
            assert torch.equal(label[kept], found.assigned[kept])
            assert not kept.any() or kept.all() or kappa[kept].min() >= kappa[~kept].max()
    for fewer, more in pairwise(accepted):
        assert not (fewer & ~more).any()
    assert method.sizes == [2, 4]


def test_without_acceptance_only_keys_of_the_own_sample_are_left_out() -> None:
    method, seen = build(acceptance=0.0), batch(8, seed=2)
    assert (method.label == MISSING).all()
    q, k = method.query(seen.views[0]), method.key(seen.views[1])
    new = Batch(seen.views, seen.index + 20, seen.label)  # no key of these is in the queue
    torch.testing.assert_close(method(new).loss, MoCo.loss(method, q, k, new))
    assert method(seen).loss < MoCo.loss(method, q, k, seen)


@pytest.mark.parametrize("treatment", ["eliminate", "attract"])
def test_the_loss_is_that_of_a_loop(treatment: str) -> None:
    method, seen = build(treatment=treatment), batch(8, seed=1)
    q, k = method.query(seen.views[0]).detach(), method.key(seen.views[1])
    terms: list[Tensor] = []
    for label in method.label:
        for i, s in enumerate(seen.index.tolist()):
            alike = [
                int(sample) == s or (label[s] >= 0 and bool(label[sample] == label[s])) for sample in method.keys[0]
            ]
            kept = torch.tensor(alike)
            negatives = method.queue.keys[~kept]
            positives = [k[i], *(method.queue.keys[kept] if treatment == "attract" else [])]
            logits = [torch.cat([p[None], negatives]) @ q[i] / 0.2 for p in positives]
            each = [F.cross_entropy(row[None], torch.tensor([0])) for row in logits]
            terms.append(torch.stack(each).mean())
    torch.testing.assert_close(method(seen).loss.detach(), torch.stack(terms).mean())


def test_the_log_tells_how_good_detection_is() -> None:
    method, seen = build(), batch(8, seed=1)
    seen.label[2] = MISSING
    right = found = same = 0
    for label in method.label:
        for s, c in zip(seen.index.tolist(), seen.label.tolist(), strict=True):
            for sample, other in method.keys.T.tolist():
                known = min(c, other) >= 0
                alike = known and (sample == s or (label[s] >= 0 and bool(label[sample] == label[s])))
                right, found, same = right + (alike and c == other), found + alike, same + (known and c == other)
    log = method(seen).log
    assert 0 < right < found
    assert float(log["precision"]) == pytest.approx(right / found)
    assert float(log["recall"]) == pytest.approx(right / same)
