"""Maps as colors."""

from __future__ import annotations

import torch

from nearfar.looking.features import inferno, laid_over, pca_colors


def test_a_direction_is_told_in_the_same_color_in_every_map() -> None:
    side = torch.tensor([3.0, -1.0, 0.5])
    level = torch.linspace(0, 1, 2 * 4 * 4).view(2, 4, 4)
    maps = side.view(1, 3, 1, 1) * level[:, None] + 7
    colors = pca_colors(maps, 4)
    red = colors[:, 0]
    assert (red.flatten().diff() >= 0).all()  # its largest loading is above 0, in both maps
    assert red.min() == 0
    assert red.max() == 1
    torch.testing.assert_close(colors[:, 1:], torch.full((2, 2, 4, 4), 0.5))  # nothing else varies
    torch.testing.assert_close(pca_colors(10 * maps - 3, 4), colors, atol=1e-4, rtol=0)


def test_maps_without_a_difference_are_gray_and_one_channel_is_enough() -> None:
    assert pca_colors(torch.full((2, 5, 3, 3), 4.0), 6).eq(0.5).all()
    assert pca_colors(torch.zeros(1, 2, 1, 1), 2).eq(0.5).all()
    assert pca_colors(torch.rand(2, 1, 3, 3), 6).shape == (2, 3, 6, 6)


def test_a_map_lies_over_the_picture_in_gray() -> None:
    picture = torch.rand(2, 3, 4, 4)
    flat = laid_over(picture, torch.ones(2, 2, 2))
    dark = inferno(torch.zeros(2, 4, 4))
    torch.testing.assert_close(flat, 0.4 * picture.mean(1, keepdim=True) + 0.6 * dark)
    levels = inferno(torch.linspace(0, 1, 50)[None, None])[0].mean(0)[0]
    assert (levels.diff() > 0).all()
