"""Filters as pictures."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nearfar.errors import UserError
from nearfar.looking.kernels import first_kernels, grid, kernel_tiles, strongest
from nearfar.method import Encoder
from nearfar.modalities.image.encoder import image_encoder
from nearfar.ops.lab import lab_to_rgb


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_a_positive_factor_of_a_filter_changes_nothing(channels: int) -> None:
    weight = torch.randn(4, channels, 3, 3, generator=torch.Generator().manual_seed(0))
    factor = torch.tensor([0.01, 1.0, 7.0, 100.0]).view(-1, 1, 1, 1)
    torch.testing.assert_close(kernel_tiles(weight), kernel_tiles(factor * weight))


@pytest.mark.parametrize(("channels", "tiles"), [(1, 4), (3, 4), (5, 20)])
def test_the_lowest_number_is_black_and_the_highest_white(channels: int, tiles: int) -> None:
    shown = kernel_tiles(torch.randn(4, channels, 3, 3))
    assert shown.shape == (tiles, 3, 3, 3)
    assert shown.amin((1, 2, 3)).tolist() == [0.0] * tiles
    assert shown.amax((1, 2, 3)).tolist() == [1.0] * tiles


def test_a_constant_filter_is_mid_gray() -> None:
    for channels in (1, 3, 4):
        assert kernel_tiles(torch.full((1, channels, 2, 2), 3.0)).eq(0.5).all()
    gray = kernel_tiles(torch.zeros(1, 2, 2, 2))
    torch.testing.assert_close(
        gray, lab_to_rgb(torch.tensor([50.0, 0, 0]).view(3, 1, 1)).view(1, 1, 1, 3).expand_as(gray)
    )


def test_two_channels_are_the_planes_of_lab() -> None:
    weight = torch.zeros(1, 2, 1, 2)
    weight[0, 0, 0, 0], weight[0, 1, 0, 1] = 0.2, -0.1  # toward red; toward blue, half as far
    ((left, right),) = kernel_tiles(weight)[:, 0]
    assert left.argmax() == 0
    assert right.argmax() == 2
    lab = torch.tensor([[50.0, 50.0], [100.0, 0.0], [0.0, -50.0]])[:, None]
    torch.testing.assert_close(kernel_tiles(weight)[0].permute(2, 0, 1), lab_to_rgb(lab).clamp(0, 1))


def test_the_grid_is_a_square_with_clear_gaps() -> None:
    sheet = grid(torch.rand(5, 3, 3, 3), side=6)  # 3 across, 2 down, of 6 pixels
    assert sheet.shape == (2 * 6 + 2, 3 * 6 + 2 * 2, 4)
    assert sheet[:6, :6, 3].eq(255).all()
    assert sheet[:, 6:8, 3].eq(0).all()
    assert sheet[8:, 16:, 3].eq(0).all()  # the sixth place is empty


def test_the_first_convolution_of_several_places_is_found() -> None:
    assert first_kernels(image_encoder("conv4", size=16))[0].shape == (32, 3, 3, 3)
    light, chroma = first_kernels(image_encoder("ycbcr:conv4", size=16))
    assert (light.shape[1], chroma.shape[1]) == (1, 2)

    class Flat(Encoder):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(3, 2)

    with pytest.raises(UserError, match="no convolution"):
        first_kernels(Flat())
    weight = torch.ones(3, 1, 1, 1) * torch.tensor([2.0, -3.0, 1.0]).view(-1, 1, 1, 1)
    assert strongest(weight, 2).tolist() == [0, 1]
