from __future__ import annotations

import math
from typing import cast

import torch
from torch import nn

from nearfar.losses.pairwise import nt_xent
from nearfar.method import Method
from nearfar.methods.debiased import Debiased

from .small import Form, form, norms, statistics

debiased = form("debiased")


def build(form: Form = debiased, **arguments: float) -> Debiased:
    return cast(Debiased, form.build(**arguments).double())


def test_loss_is_that_of_a_loop_over_anchors() -> None:
    method, batch = build(tau_plus=0.2), debiased.batch(6, dtype=torch.float64)
    z = nn.functional.normalize(method.projector(method.encoder(torch.cat(batch.views)))).detach()
    terms, bounded = [], 0
    for i in range(12):
        e = [math.exp(float(z[i] @ z[j]) / 0.5) for j in range(12)]
        pos = e[(i + 6) % 12]
        g = (sum(e[j] for j in range(12) if j % 6 != i % 6) - 0.2 * 10 * pos) / 0.8
        bounded += g < 10 * math.exp(-1 / 0.5)
        terms.append(-math.log(pos / (pos + max(g, 10 * math.exp(-1 / 0.5)))))
    assert bounded < 12
    torch.testing.assert_close(method(batch).loss.item(), sum(terms) / 12)


def test_without_a_share_it_is_nt_xent() -> None:
    method, batch = build(tau_plus=0.0), debiased.batch(6, dtype=torch.float64)
    z1, z2 = nn.functional.normalize(method.projector(method.encoder(torch.cat(batch.views)))).chunk(2)
    torch.testing.assert_close(method(batch).loss, nt_xent(z1, z2, temperature=0.5))


def test_hcl_without_a_tilt_is_the_same() -> None:
    batch = debiased.batch(6, dtype=torch.float64)
    other = form("hcl", beta=0.0).build().double()
    torch.testing.assert_close(other(batch).loss, build()(batch).loss)


def test_it_keeps_no_memory_and_its_last_layer_has_no_norm() -> None:
    method: Method = build()
    assert {name for name, _ in method.named_buffers()} == statistics(method)
    assert len(norms(method)) == 2
    assert all(p.requires_grad for p in method.parameters())
