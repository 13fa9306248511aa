from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from nearfar.nn.spectral import iterate, spectral


def test_the_weights_come_to_have_the_norm_1_and_only_iterate_moves_the_vectors() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(spectral(nn.Conv2d(3, 6, 3)), nn.Flatten(), spectral(nn.Linear(6, 4)))
    x = torch.randn(2, 3, 3, 3)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(5.0).add_(torch.randn_like(p))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert torch.equal(net(x), net(x))
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())
    for _ in range(200):
        iterate(net)
    for layer in (net[0], net[2]):
        weight = layer.get_submodule("parametrizations.weight")()  # divided
        assert float(torch.linalg.matrix_norm(weight.detach().flatten(1), 2)) == pytest.approx(1, abs=1e-5)


def test_state_and_gradient_are_those_of_torch() -> None:
    torch.manual_seed(0)
    ours, theirs = spectral(nn.Linear(5, 4)), spectral_norm(nn.Linear(5, 4)).eval()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 5)
    for layer in (ours, theirs):
        layer(x).square().sum().backward()
    got, want = ({name: p.grad for name, p in layer.named_parameters()} for layer in (ours, theirs))
    torch.testing.assert_close(got, want)
    with torch.autocast("cpu", torch.bfloat16):
        assert ours.weight.dtype == torch.float32
    theirs.train()
    theirs(x)
    iterate(ours)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
