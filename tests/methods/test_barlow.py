from __future__ import annotations

from typing import cast

import torch
from torch import nn

from nearfar.batch import Batch
from nearfar.methods.barlow import BarlowTwins

from .small import form, statistics

barlow = form("barlow", dim=12)


def build(**arguments: float) -> BarlowTwins:
    return cast(BarlowTwins, barlow.build(**arguments).double())


def test_loss_is_that_of_a_loop_over_features() -> None:
    method, batch = build(), barlow.batch(7, dtype=torch.float64)
    z1, z2 = (method.project(view).detach() for view in batch.views)
    loss = 0.0
    for i in range(12):
        for j in range(12):
            a, b = (z - z.mean() for z in (z1[:, i], z2[:, j]))
            c = float((a * b).mean() / ((a.square().mean() + 1e-5) * (b.square().mean() + 1e-5)).sqrt())
            assert abs(c) <= 1
            loss += (c - 1) ** 2 if i == j else 0.005 * c**2
    torch.testing.assert_close(method(batch).loss.item(), loss)


def test_swapped_views_and_permuted_samples_have_the_same_loss() -> None:
    method, batch = build(), barlow.batch(8, dtype=torch.float64)
    want = method(batch).loss
    for views in (batch.views[::-1], [view.flip(0) for view in batch.views]):
        torch.testing.assert_close(method(Batch(views, batch.index, batch.label, batch.group)).loss, want)


def test_the_scale_of_a_feature_does_not_matter_but_its_company_does() -> None:
    method, batch = build(), barlow.batch(16, dtype=torch.float64)
    weight = cast(nn.Linear, method.projector[-1]).weight
    with torch.no_grad():
        weight.mul_(10)  # lest the epsilon under the root be felt
        want = method(batch).loss
        weight[3] *= 7
        torch.testing.assert_close(method(batch).loss, want, rtol=1e-3, atol=0)
        weight[4] = weight[3]
        assert method(batch).loss > want + 0.005


def test_without_lam_a_feature_is_by_itself() -> None:
    method, batch = build(lam=0.0), barlow.batch(8, dtype=torch.float64)
    last = cast(nn.Linear, method.projector[-1]).weight
    first = torch.autograd.grad(method(batch).loss, last)[0]
    with torch.no_grad():
        last[5] = last[6].flip(0)
    second = torch.autograd.grad(method(batch).loss, last)[0]
    others = torch.arange(12) != 5
    torch.testing.assert_close(first[others], second[others])


def test_it_keeps_no_memory() -> None:
    method = build()
    assert {name for name, _ in method.named_buffers()} == statistics(method)
    assert all(p.requires_grad for p in method.parameters())
