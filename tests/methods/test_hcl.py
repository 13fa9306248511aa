from __future__ import annotations

import math
from typing import cast

import pytest
import torch
from torch import nn

from nearfar.method import Clock
from nearfar.methods.hcl import HCL

from .small import Form, form

hcl = form("hcl")


def build(form: Form = hcl, **arguments: float) -> HCL:
    return cast(HCL, form.build(**arguments).double())


def test_loss_is_that_of_a_loop_over_anchors() -> None:
    method, batch = build(beta=2.0), hcl.batch(6, dtype=torch.float64)
    z = nn.functional.normalize(method.projector(method.encoder(torch.cat(batch.views)))).detach()
    terms = []
    for i in range(12):
        s = [float(z[i] @ z[j]) / 0.5 for j in range(12)]
        others = [s[j] for j in range(12) if j % 6 != i % 6]
        weight = [math.exp(2 * o) for o in others]
        r = sum(w * math.exp(o) for w, o in zip(weight, others, strict=True)) / (sum(weight) / 10)
        pos = math.exp(s[(i + 6) % 12])
        ng = max((r - 0.1 * 10 * pos) / 0.9, 10 * math.exp(-1 / 0.5))
        terms.append(-math.log(pos / (pos + ng)))
    torch.testing.assert_close(method(batch).loss.item(), sum(terms) / 12)


def test_hard_negatives_weigh_more_the_larger_beta_is() -> None:
    batch = hcl.batch(8, dtype=torch.float64)
    losses = [float(build(beta=beta, tau_plus=0.0)(batch).loss.detach()) for beta in (0.0, 1.0, 3.0)]
    assert losses[0] < losses[1] < losses[2]


def test_beta_falls_to_nothing_in_equal_steps() -> None:
    method = build(form("hcl", anneal=4), beta=2.0)
    tilts = []
    for step in range(100):
        method.clock = Clock(step=step, steps=100)
        tilts.append(method.tilt())
    assert sorted(set(tilts), reverse=True) == pytest.approx([2.0, 1.5, 1.0, 0.5, 0.0])
    assert [tilts.index(tilt) for tilt in sorted(set(tilts), reverse=True)] == [0, 20, 40, 60, 80]
    method.clock = Clock(step=100, steps=100)
    assert method.tilt() == 0
    late = method(hcl.batch(8, dtype=torch.float64)).loss
    torch.testing.assert_close(late, build(beta=0.0)(hcl.batch(8, dtype=torch.float64)).loss)


def test_beta_stays_without_annealing() -> None:
    method = build(beta=2.0)
    method.clock = Clock(step=99, steps=100)
    assert method.tilt() == 2
