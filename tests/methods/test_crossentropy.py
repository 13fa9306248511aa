from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from nearfar.batch import MISSING, Batch

from .small import form

ENTROPY = form("crossentropy")


def test_every_view_is_told_by_its_label() -> None:
    method, batch = ENTROPY.build(), ENTROPY.batch(8)
    batch = Batch(batch.views * 2, batch.index, batch.label)
    known = batch.label >= 0
    out = method(batch)
    with torch.no_grad():
        want = F.cross_entropy(method.classify(batch.views[0])[known], batch.label[known])
    # The two views are the same, so that batch norm sees the same statistics in one pass and in two.
    torch.testing.assert_close(out.loss.detach(), want)


def test_the_prior_is_that_of_the_labels() -> None:
    method = ENTROPY.build(prior=True)
    torch.testing.assert_close(method.classifier.log_prior, torch.full((3,), -math.log(3)))
    assert method.chance(8) == torch.tensor(-math.log(1 / 3)).item() or abs(method.chance(8) - math.log(3)) < 1e-6


def test_a_batch_without_labels_is_finite() -> None:
    method, batch = ENTROPY.build(), ENTROPY.batch(8)
    out = method(Batch(batch.views, batch.index, torch.full_like(batch.label, MISSING)))
    assert out.loss == 0
    assert out.log["right"] == 0
