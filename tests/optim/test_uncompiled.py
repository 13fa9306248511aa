from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from nearfar import optim

KINDS = {
    "sgd": (optim.sgd, lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9)),
    "adam": (optim.adam, lambda groups: torch.optim.Adam(groups, lr=0.1, eps=1e-8, fused=True)),
    "adamw": (optim.adamw, lambda groups: torch.optim.AdamW(groups, lr=0.1, eps=1e-8, fused=True)),
}


@pytest.mark.parametrize("name", KINDS)
def test_they_are_torchs_own_to_the_bit(name: str) -> None:
    ours, theirs = KINDS[name]
    torch.manual_seed(0)
    net = nn.Linear(5, 3)
    other = copy.deepcopy(net)
    optimizers = (
        ours([{"params": list(net.parameters()), "weight_decay": 0.1}], 0.1),
        theirs([{"params": list(other.parameters()), "weight_decay": 0.1}]),
    )
    for number in range(4):
        if number == 2:  # through a checkpoint
            optimizers[0].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
        x = torch.randn(6, 5)
        for optimizer, one in zip(optimizers, (net, other), strict=True):
            optimizer.zero_grad()
            one(x).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(net.state_dict(), other.state_dict(), rtol=0, atol=0)
    assert optimizers[0].param_groups[0].keys() - {"initial_lr"} == optimizers[1].param_groups[0].keys()


def test_steps_do_not_load_the_compiler() -> None:
    code = """
import sys, torch
from nearfar import optim
for make in (optim.sgd, optim.adam, optim.adamw, lambda g, lr: optim.lars(g, lr, rate_in_momentum=True), optim.larc):
    p = torch.nn.Parameter(torch.ones(3, 3))
    optimizer = make([{"params": [p], "weight_decay": 0.1}], 0.1)
    optimizer.zero_grad()
    p.square().sum().backward()
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
assert "torch._dynamo" not in sys.modules, "an optimizer loaded torch's compiler"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
