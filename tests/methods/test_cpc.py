from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from nearfar.methods.cpc import CPC
from nearfar.ops.patches import cut

from .small import form, freeze_norms

cpc = form("cpc")


def build(**arguments: Any) -> CPC:
    return cast(CPC, cpc.build(**arguments))


def test_loss_is_that_of_a_loop() -> None:
    method, batch = build(grid=4, skip=1, steps=3).double(), cpc.batch(3, dtype=torch.float64)
    freeze_norms(method)
    patches = cut(batch.views[0], 4, overlap=0.5, share=0.94, generator=method.clock.generator())
    z = torch.stack([method.encoder(image) for image in patches])  # N x 16 x dim
    c = method.context(z.mT.unflatten(2, (4, 4)))  # N x width x 4 x 4
    every, terms = z.flatten(0, 1), list[Tensor]()
    for k, w in ((2, method.maps[0]), (3, method.maps[1])):
        for n in range(3):
            for row in range(4 - k):
                for column in range(4):
                    scores = every @ w(c[n, :, row, column])
                    terms.append(scores.logsumexp(0) - scores[16 * n + 4 * (row + k) + column])
    assert len(terms) == 3 * (2 + 1) * 4
    torch.testing.assert_close(method(batch).loss, torch.stack(terms).mean())


def test_latents_may_have_layer_norm() -> None:
    method, batch, seen = build(norm=True), cpc.batch(3), list[Tensor]()
    method.context.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    method(batch)
    torch.testing.assert_close(seen[0].mean(1), torch.zeros(3, 7, 7), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen[0].square().mean(1), torch.ones(3, 7, 7), atol=1e-2, rtol=0)


def test_chance_counts_all_patches_of_the_batch() -> None:
    assert float(build(grid=5).chance(cpc.batch(8))) == pytest.approx(math.log(8 * 25))


def test_steps_reach_no_farther_than_the_grid() -> None:
    assert list(build(grid=7).steps) == [2, 3, 4, 5]
    assert list(build(grid=3).steps) == [2]
    with pytest.raises(ValueError, match="nothing is left to predict in 2 rows or steps from 2 to"):
        build(grid=2)
