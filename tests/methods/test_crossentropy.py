from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch
from torch.nn import functional as F

from nearfar.batch import MISSING, Batch
from nearfar.methods.crossentropy import CrossEntropy

from .small import TinyEncoder, form

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
    uneven = CrossEntropy(cast(Any, TinyEncoder()), counts=(6, 3, 1), prior=True)
    batch = ENTROPY.batch(8)
    batch.label = torch.tensor([0, 0, 1, -1, 0, 2, -1, 1])
    want = -(3 * math.log(0.6) + 2 * math.log(0.3) + math.log(0.1)) / 6
    assert float(uneven.chance(batch)) == pytest.approx(want, rel=1e-6)


def test_a_batch_without_labels_is_finite() -> None:
    method, batch = ENTROPY.build(), ENTROPY.batch(8)
    out = method(Batch(batch.views, batch.index, torch.full_like(batch.label, MISSING)))
    assert out.loss == 0
    assert out.log["right"] == 0
