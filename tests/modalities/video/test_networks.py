from __future__ import annotations

import pytest
import torch
from torch import nn

from nearfar.modalities.video.encoder import video_encoder
from nearfar.modalities.video.networks import SpatialSoftArgmax, slow_only


def test_the_soft_argmax_of_a_bright_place_is_that_place() -> None:
    maps = torch.zeros(1, 2, 5, 9)
    maps[0, 0, 1, 6], maps[0, 1, 4, 0] = 200, 200
    out = SpatialSoftArgmax()(maps)[0]
    torch.testing.assert_close(out, torch.tensor([2 * 6 / 8 - 1, -1, 2 * 1 / 4 - 1, 1]))
    assert SpatialSoftArgmax()(torch.ones(1, 3, 4, 4)).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("layers", "small", "stem", "maps"),
    [
        (18, True, (5, 3, 3), (4, 2, 16, 16)),
        (18, False, (5, 7, 7), (4, 2, 4, 4)),
        (50, True, (5, 3, 3), (16, 2, 16, 16)),
    ],
)
def test_slow_only_reaches_over_time_in_its_stem_and_last_stages(
    layers: int, small: bool, stem: tuple[int, ...], maps: tuple[int, ...]
) -> None:
    stages = slow_only(layers, 4, small_stem=small)
    sizes = [[tuple(m.kernel_size) for m in stage.modules() if isinstance(m, nn.Conv3d)] for stage, _ in stages]
    assert sizes[0][0] == stem
    reach = [max(size[0] for size in own) for own in (sizes[0][1:], *sizes[1:])]
    assert reach == [1, 1, 3, 3]
    x = torch.rand(1, 3, 4, 16, 16)
    first = stages[0][0](x)
    assert tuple(first.shape[1:]) == maps
    assert nn.Sequential(*(stage for stage, _ in stages))(x).shape[1] == stages[-1][1] == (128 if layers == 50 else 32)


def test_r3d_50_of_the_paper_has_its_size() -> None:
    with torch.device("meta"):
        count = sum(p.numel() for stage, _ in slow_only(50, 64, small_stem=False) for p in stage.parameters())
    assert round(count / 1e6, 1) == 31.7


@pytest.mark.parametrize(("over", "ordered"), [("mean", False), ("attention", True), ("conv", True)])
def test_only_the_mean_of_frames_knows_no_order(over: str, ordered: bool) -> None:
    torch.manual_seed(0)
    encoder = video_encoder("conv4", frames=4, size=16, over_time=over).eval()  # pyright: ignore[reportArgumentType]
    clip = torch.rand(2, 4, 3, 16, 16)
    assert torch.allclose(encoder(clip), encoder(clip.flip(1)), atol=1e-5) != ordered
