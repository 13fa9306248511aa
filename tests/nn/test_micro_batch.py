from __future__ import annotations

import pytest
import torch
from torch import nn

from nearfar.modalities.image.encoder import image_encoder
from nearfar.nn.micro_batch import ROOM, activation_bytes, fitting, sees_batch
from nearfar.nn.norms import split_norms


def test_activations_are_counted_once_and_without_weights() -> None:
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    # The first layer keeps its input, the ReLU and the last layer the same 16 numbers.
    assert activation_bytes(net, torch.zeros(5, 8)) == 4 * (8 + 16)


def test_counting_leaves_the_network_as_it_was() -> None:
    net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    activation_bytes(net, torch.randn(5, 8))
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("rows", [1, 7, 512, 16384])
@pytest.mark.parametrize("needed", [1e3, 1e6, 1e9])
def test_what_does_not_fit_is_cut_until_it_does(rows: int, needed: float) -> None:
    free = 8e9
    found = fitting(needed, rows, free)
    if needed * rows <= ROOM * free:
        assert found == 0
    else:
        assert 2 <= found <= rows
        assert found == 2 or needed * found <= ROOM * free / 4 < needed * found * 2


def test_norms_that_see_the_batch_are_known() -> None:
    norm = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4))
    assert sees_batch(norm)
    assert sees_batch(split_norms(norm, 2))
    assert sees_batch(image_encoder("conv4", size=32))
    assert sees_batch(image_encoder("test_efficientnet", size=32))  # timm's own kind of batch norm
    assert not sees_batch(image_encoder("test_vit", size=160))
    assert not sees_batch(nn.Sequential(nn.GroupNorm(2, 4), nn.InstanceNorm1d(4)))
