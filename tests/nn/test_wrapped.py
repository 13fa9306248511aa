from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nearfar.method import Stage
from nearfar.nn.wrapped import Wrapped
from tests.methods.small import TinyEncoder, TinyStreams


def test_a_module_gives_what_it_gave_and_lends_its_parts() -> None:
    net = TinyEncoder().eval()
    encoder = Wrapped(net, {"kind": "anything", "name": "TinyEncoder", "own": True})
    x = torch.rand(3, 3, 8, 8)
    assert encoder.dim == 24
    assert encoder.network() is net
    assert torch.equal(encoder(x), net(x))
    assert [m.shape[1] for m in encoder.maps(x)] == [6, 6, 6]
    pair = Wrapped(TinyStreams().eval(), {})
    assert torch.equal(torch.cat([stream(x) for stream in pair.streams()], 1), pair(x))
    with pytest.raises(ValueError, match="TinyEncoder is one network"):
        encoder.streams()
    with pytest.raises(ValueError, match="Wrapped has no maps"):
        pair.maps(x)
    with pytest.raises(NotImplementedError):
        encoder.example(2)


class Wide(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize("dim", [None, 0, 2.5])
def test_a_module_tells_its_width(dim: Any) -> None:
    net = Wide()
    if dim is not None:
        net.dim = dim
    with pytest.raises(TypeError, match="the encoder Wide does not tell how many numbers"):
        Wrapped(net, {})


def test_a_stage_is_an_encoder() -> None:
    stage = Stage(nn.Linear(3, 2), nn.ReLU(), dim=2)
    assert stage(torch.ones(4, 3)).shape == (4, stage.dim)
    assert (stage.spec, stage.notes, stage.source()) == ({}, [], None)
