from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.method import Method

from .small import form

dcl = form("dcl")


def embeddings(method: Method, batch: Batch) -> Tensor:
    h = method.encoder(torch.cat(batch.views))
    return nn.functional.normalize(method.get_submodule("projector")(h)).detach()


def test_loss_is_that_of_a_loop_over_anchors() -> None:
    method, batch = dcl.build().double(), dcl.batch(5, dtype=torch.float64)
    z, terms = embeddings(method, batch), []
    for i in range(10):
        s = [float(z[i] @ z[j]) / 0.1 for j in range(10)]
        terms.append(-s[(i + 5) % 10] + math.log(sum(math.exp(s[j]) for j in range(10) if j % 5 != i % 5)))
    torch.testing.assert_close(method(batch).loss.item(), sum(terms) / 10)


def test_weighted_pairs_that_are_more_alike_than_others_are_pulled_less() -> None:
    batch = dcl.batch(5, dtype=torch.float64)
    plain, weighted = dcl.build().double(), form("dcl", weighted=True, sigma=0.2).build().double()
    z1, z2 = embeddings(plain, batch).chunk(2)
    cosine = (z1 * z2).sum(1)
    w = 2 - (cosine / 0.2).exp() / (cosine / 0.2).exp().mean()
    torch.testing.assert_close(w.mean().item(), 1.0)
    want = plain(batch).loss - ((w - 1) * cosine / 0.1).mean()
    torch.testing.assert_close(weighted(batch).loss, want)


def test_a_large_sigma_weighs_alike() -> None:
    batch = dcl.batch(5, dtype=torch.float64)
    weighted = form("dcl", weighted=True, sigma=1e9).build().double()
    torch.testing.assert_close(weighted(batch).loss, dcl.build().double()(batch).loss)


def test_it_takes_over_what_simclr_has() -> None:
    ours, theirs = dcl.build(), form("simclr").build()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert ours(dcl.batch(8)).loss < theirs(dcl.batch(8)).loss
