from __future__ import annotations

import torch
from torch import Tensor

from nearfar.batch import MISSING, Batch
from nearfar.losses.metric import n_pairs
from nearfar.losses.pairwise import info_nce_batch
from nearfar.method import Method

from .small import clock, form

plain = form("npairs", penalty=0.0)
LABEL = torch.tensor([0, 1, 0, MISSING, 2, 0, 1, MISSING])


def made(label: Tensor = LABEL) -> Batch:
    batch = plain.batch(8, dtype=torch.float64)
    return Batch(batch.views, batch.index, label)


def embeddings(method: Method, batch: Batch) -> tuple[Tensor, Tensor]:
    a, p = method.get_submodule("projector")(method.encoder(torch.cat(batch.views))).chunk(2)
    return a, p


def test_loss_is_that_of_embeddings_of_any_length_in_an_order_of_the_step() -> None:
    method, losses = plain.build().double(), set()
    for number in range(6):
        method.clock = clock(number)
        a, p = embeddings(method, made())
        order = torch.randperm(8, generator=method.clock.generator())
        loss = method(made()).loss
        torch.testing.assert_close(loss, n_pairs(a, p, LABEL, order))
        losses.add(round(loss.item(), 9))
    assert len(losses) > 1, "another step draws other pairs"


def test_without_labels_each_sample_is_a_class_and_the_loss_info_nce() -> None:
    method, batch = plain.build().double(), made(torch.full((8,), MISSING))
    torch.testing.assert_close(method(batch).loss, info_nce_batch(*embeddings(method, batch), temperature=1.0))


def test_the_penalty_is_on_the_squares_of_lengths() -> None:
    bare, held = plain.build().double(), form("npairs", penalty=0.5).build().double()
    a, p = embeddings(bare, made())
    squares = torch.cat([a, p]).square().sum(1).mean()
    torch.testing.assert_close(held(made()).loss, bare(made()).loss + 0.5 * squares)


def test_one_view_of_each_sample_will_do() -> None:
    method, batch = plain.build().double(), made()
    z = method.get_submodule("projector")(method.encoder(batch.views[0]))
    order = torch.randperm(8, generator=method.clock.generator())
    one = Batch(batch.views[:1], batch.index, LABEL)
    torch.testing.assert_close(method(one).loss, n_pairs(z, z, LABEL, order))
