from __future__ import annotations

import math

import torch
from torch import Tensor

from nearfar.batch import Batch
from nearfar.method import Method

from .small import form, freeze_norms, norms, statistics

simclr = form("simclr")


def loss(method: Method, batch: Batch, *views: Tensor) -> Tensor:
    return method(Batch(list(views), batch.index, batch.label, batch.group)).loss.detach()


def test_loss_is_that_of_a_loop_over_anchors() -> None:
    method, batch = simclr.build().double(), simclr.batch(5, dtype=torch.float64)
    h = method.encoder(torch.cat(batch.views))
    z = torch.nn.functional.normalize(method.get_submodule("projector")(h)).detach()
    terms = []
    for i in range(10):
        s = [float(z[i] @ z[j]) / 0.1 for j in range(10)]
        terms.append(-s[(i + 5) % 10] + math.log(sum(math.exp(s[j]) for j in range(10) if j != i)))
    assert all(term > 0 for term in terms)
    torch.testing.assert_close(method(batch).loss.item(), sum(terms) / 10)


def test_swapped_views_and_permuted_samples_have_the_same_loss() -> None:
    method, batch = simclr.build().double(), simclr.batch(6, dtype=torch.float64)
    v1, v2 = batch.views
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    want = loss(method, batch, v1, v2)
    torch.testing.assert_close(loss(method, batch, v2, v1), want)
    torch.testing.assert_close(loss(method, batch, v1[order], v2[order]), want)
    assert not torch.isclose(loss(method, batch, v1, v2[order]), want)


def test_one_sample_has_nothing_to_tell_apart() -> None:
    method = simclr.build().double()
    freeze_norms(method)
    # log exp(s) - s of its one pair, where s is at most 10: zero up to rounding.
    loss = method(simclr.batch(1, dtype=torch.float64)).loss
    torch.testing.assert_close(loss.item(), 0.0, atol=1e-13, rtol=0)


def test_it_keeps_no_memory() -> None:
    method = simclr.build()
    buffers = {name for name, _ in method.named_buffers()}
    assert buffers == statistics(method)
    # Frozen is the offset of the last batch norm alone.
    assert [p.requires_grad for p in method.parameters()].count(False) == 1
    assert len(norms(method)) == 3
