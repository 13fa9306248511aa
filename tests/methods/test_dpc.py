from __future__ import annotations

import math
from typing import cast

import pytest
import torch

from nearfar.methods.dpc import DPC

from .small import form, freeze_norms

dpc = form("dpc")


def build(**arguments: object) -> DPC:
    return cast(DPC, dpc.build(**arguments))


def test_the_loss_is_that_of_a_loop_over_predicted_cells() -> None:
    method, batch = build(blocks=4, steps=2, cells=2).double(), dpc.batch(3, dtype=torch.float64)
    freeze_norms(method)
    z = method.look(batch.views[0])  # N x 4 x 4 x width
    assert z.shape[:3] == (3, 4, 4)
    block = method.encoder.stages()[0](batch.views[0][1:2, 2:4]).mean(2)  # the second block of the second video
    pooled = torch.nn.functional.adaptive_avg_pool2d(block, 2)[0].flatten(1).T
    torch.testing.assert_close(z[1, 1], method.cell(pooled))
    forecast, p = method.forecast, torch.zeros(3, 2, 4, z.shape[3], dtype=torch.float64)
    for n in range(3):
        for s in range(4):
            state = torch.zeros(1, z.shape[3], dtype=torch.float64)
            for b in range(2):
                state = forecast.state(z[n, b, s][None].relu(), state)
            for k in range(2):
                p[n, k, s] = forecast.predictor(state)[0]
                state = forecast.state(p[n, k, s][None].relu(), state)
    rows, keys = p.flatten(0, 2), z[:, 2:].flatten(0, 2)
    want = torch.nn.functional.cross_entropy(rows @ keys.T, torch.arange(24))
    torch.testing.assert_close(method(batch).loss, want)
    assert float(method.chance(batch)) == pytest.approx(math.log(24))


def test_what_cannot_be_predicted_is_refused() -> None:
    with pytest.raises(ValueError, match="of 3 blocks 3 are to be predicted"):
        build(blocks=3, steps=3)
