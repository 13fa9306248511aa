from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import nn

from nearfar.batch import Batch
from nearfar.losses.pairwise import info_nce
from nearfar.methods.sce import SCE
from nearfar.nn.norms import SplitBatchNorm

from .small import form, freeze_norms, sgd, step

sce = form("sce")


def build(**arguments: Any) -> SCE:
    return cast(SCE, form("sce", **arguments).build())


def test_with_all_of_the_target_on_the_key_it_is_moco() -> None:
    method, batch = build(share=1.0).double(), sce.batch(8, dtype=torch.float64)
    q, k = method.query(batch.views[0]), method.key(batch.views[1])
    torch.testing.assert_close(method(batch).loss, info_nce(q, k, method.queue.keys, temperature=method.temperature))


@pytest.mark.parametrize("own", ["left_out", "zero"])
def test_loss_is_the_cross_entropy_of_key_and_likeness(own: str) -> None:
    method, batch = build(own=own, share=0.3).double(), sce.batch(5, dtype=torch.float64)
    q, k, queue = method.query(batch.views[0]), method.key(batch.views[1]), method.queue.keys
    slot = torch.zeros(5, 1) if own == "zero" else torch.full((5, 1), -torch.inf)
    w = 0.7 * torch.cat([slot, k @ queue.T / 0.05], 1).softmax(1)
    w[:, 0] += 0.3
    log_p = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], 1).div(0.1).log_softmax(1)
    torch.testing.assert_close(method(batch).loss, -(w * log_p).sum(1).mean())


def test_the_queue_gets_the_keys_of_the_second_view_after_the_loss() -> None:
    method, batch = build(), sce.batch(8)
    keys = method.key(batch.views[1])
    step(method, sgd(method), batch)
    torch.testing.assert_close(method.queue.keys[:8], keys)


def test_the_first_view_of_its_recipe_is_strong_and_the_second_weak() -> None:
    strong, weak = (view.flatten(1) for view in sce.batch(64).views)

    def gray(view: torch.Tensor) -> torch.Tensor:
        channels = view.unflatten(1, (3, -1))
        return (channels.amax(1) - channels.amin(1)).amax(1) < 1e-5

    assert gray(strong).any()
    assert not gray(weak).any()


def test_the_copy_follows_the_projector_with_its_norms_and_not_the_predictor() -> None:
    method = build(momentum=0.0, predictor=True, layers=3)
    assert sum(isinstance(layer, nn.Linear) for layer in method.projector) == 3
    assert all(isinstance(layer, SplitBatchNorm) for layer in method.projector if "Norm" in type(layer).__name__)
    step(method, sgd(method), sce.batch(8))
    for slow, fast in zip(method.slow.projector.parameters(), method.projector.parameters(), strict=True):
        assert torch.equal(slow, fast)
    assert not any("key_predictor" in name for name in method.state_dict())


def test_symmetric_is_the_mean_of_both_directions() -> None:
    method, batch = build(symmetric=True).double(), sce.batch(8, dtype=torch.float64)
    freeze_norms(method)
    both = method(batch).loss
    method.symmetric = False
    one = method(batch).loss
    other = method(Batch(batch.views[::-1], batch.index, batch.label, batch.group)).loss
    torch.testing.assert_close(both, (one + other) / 2)
