from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from nearfar.method import frozen_statistics

from .small import clock, form

plain = form("graphcl")


def test_each_view_passes_alone_and_the_positive_is_not_below() -> None:
    method, batch = plain.build().double(), plain.batch(8, dtype=torch.float64)
    z1, z2 = (F.normalize(method.projector(method.encoder(view)), dim=1) for view in batch.views)
    logits = z1 @ z2.T / 0.2
    below = logits.masked_fill(torch.eye(8, dtype=torch.bool), -math.inf).logsumexp(1)
    torch.testing.assert_close(method(batch).loss, (below - logits.diagonal()).mean())
    other = form("graphcl", positive_below=True).build().double()
    torch.testing.assert_close(other(batch).loss, F.cross_entropy(logits, torch.arange(8)))


def test_running_statistics_see_both_views_in_turn() -> None:
    method, batch = plain.build().double(), plain.batch(8, dtype=torch.float64)
    for step in range(2):
        method.clock = clock(0)
        method.clock.step = step
        with frozen_statistics(method.projector):
            mean = method.encoder.norm.running_mean.clone()
            method(batch)
            moved = method.encoder.norm.running_mean - mean
        seen = method.encoder.conv(batch.views[step]).mean((0, 2, 3))
        torch.testing.assert_close(moved, 0.1 * (seen - mean))


def test_the_head_is_two_layers_of_the_width_of_the_encoder() -> None:
    head = plain.build().projector
    assert [tuple(p.shape) for p in head.parameters()] == [(24, 24), (24,), (24, 24), (24,)]
    bound = math.sqrt(6 / 48)  # Glorot's
    weight = head[0].weight
    assert 0.9 * bound < float(weight.detach().abs().max()) <= bound
    assert not head[0].bias.any()


def test_chance_is_the_logarithm_of_the_negatives() -> None:
    assert float(plain.build().chance(plain.batch(8))) == pytest.approx(math.log(7))
    assert float(form("graphcl", positive_below=True).build().chance(plain.batch(8))) == pytest.approx(math.log(8))
