"""Every loss by itself under autocast: a user's own loop may have it on around everything."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from .ranks import unit
from .test_four_ranks import LOSSES, D, N


@pytest.mark.parametrize("name", LOSSES)
def test_autocast_changes_no_loss(name: str) -> None:
    results: list[list[Tensor]] = []
    for on in (True, False):
        a, b = (unit(N, D, seed).float().requires_grad_() for seed in (0, 1))
        with torch.autocast("cpu", torch.bfloat16, enabled=on):
            loss = LOSSES[name](a, b, torch.arange(N), None)
        gradients = torch.autograd.grad(loss, (a, b), allow_unused=True)
        results.append([loss.detach(), *(g for g in gradients if g is not None)])
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-7)
