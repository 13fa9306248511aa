from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch
from torch import nn

from nearfar.export.encoder import export_encoder, load_encoder
from nearfar.modalities.video.encoder import from_spec, video_encoder
from nearfar.modalities.video.networks import torchvision_stages
from nearfar.modalities.video.settings import CLIP_NETWORKS, insist_encoder

NETWORKS = [
    ("slow18x4", {}, 32),
    ("conv4", {"over_time": "conv"}, 512),
    ("conv4", {"over_time": "attention", "pooling": "softargmax"}, 256),
]


@pytest.mark.parametrize(("name", "how", "dim"), NETWORKS)
def test_an_encoder_comes_back_from_its_spec_and_is_its_stages(name: str, how: dict[str, str], dim: int) -> None:
    torch.manual_seed(0)
    encoder = video_encoder(name, frames=4, size=16, stride=2, mean=(0.3,) * 3, std=(0.2,) * 3, **how).eval()  # pyright: ignore[reportArgumentType]
    view = encoder.example(2, torch.Generator().manual_seed(0))
    assert view.shape == (2, 4, 3, 16, 16)
    out = encoder(view)
    assert out.shape == (2, dim)
    assert encoder.dim == dim
    again = from_spec(encoder.spec).eval()
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again(view), out)
    *lower, top = stages = encoder.stages()
    torch.testing.assert_close(nn.Sequential(*stages)(view), out)
    maps = nn.Sequential(*lower)(view)
    assert torch.equal(encoder.with_map(view)[1], maps)
    assert torch.equal(encoder.maps(view)[-1], maps)
    assert (maps.dim(), maps.shape[1]) == (5, lower[-1].dim)
    assert top.dim == dim
    held = {id(p) for stage in stages for p in stage.parameters()}
    assert held == {id(p) for p in encoder.parameters()}
    one = encoder(view[:, :1])  # a frame alone
    assert one.shape == (2, dim)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *((name, how) for name, how, _ in NETWORKS),
        ("conv4", {"pooling": "softargmax"}),
        ("resnet10t", {"pooling": "softargmax"}),
    ],
)
def test_an_export_needs_no_library(name: str, how: dict[str, str], tmp_path: Path) -> None:
    encoder = video_encoder(name, frames=3, size=32, mean=(0.3,) * 3, std=(0.2,) * 3, **how).eval()  # pyright: ignore[reportArgumentType]
    for norm in encoder.modules():  # as training leaves them
        if isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
    report = export_encoder(encoder, tmp_path)
    assert "nearfar" not in report.loader
    view = encoder.example(2, torch.Generator().manual_seed(0))
    with torch.no_grad():
        want = encoder(view)
        torch.testing.assert_close(runpy.run_path(str(tmp_path / "encoder.py"))["encode"](view), want)
        torch.testing.assert_close(load_encoder(tmp_path)(view), want)


def test_the_text_of_an_export_builds_networks_of_torchvision_too() -> None:
    with torch.device("meta"):
        encoder, made = video_encoder("r3d_18", frames=2, size=16), {}
        exec("import torch\n" + "\n".join(encoder.source()[0]), made)
    shapes = lambda net: {key: value.shape for key, value in net.state_dict().items()}
    assert shapes(made["net"]) == shapes(encoder.network())
    assert made["net"].eval()(torch.empty(1, 3, 2, 16, 16, device="meta")).shape == (1, 512)


def test_networks_of_torchvision_have_the_layers_of_its_own() -> None:
    from torchvision.models import video

    for name in CLIP_NETWORKS[:2]:
        with torch.device("meta"):
            ours, theirs = nn.Sequential(*(stage for stage, _ in torchvision_stages(name))), getattr(video, name)()
        count = lambda net: sum(p.numel() for p in net.parameters())
        assert count(ours) == count(theirs) - count(theirs.fc)


def test_pixels_are_normalized_once() -> None:
    encoder = video_encoder("conv4", frames=2, size=16, mean=(0.3,) * 3, std=(0.2,) * 3).eval()
    view = encoder.example(2)
    frames = torch.stack([encoder.net.frame.net((frame - 0.3) / 0.2) for frame in view])  # pyright: ignore
    torch.testing.assert_close(encoder(view), frames.mean(1))


def test_what_is_no_clip_or_no_network_is_refused() -> None:
    with pytest.raises(ValueError, match=r"N x T x 3 x H x W, got 2 x 3 x 16 x 16"):
        video_encoder("slow18x4", frames=2, size=16)(torch.rand(2, 3, 16, 16))
    for name, words in (("slow19", "networks of clips are r3d_18"), ("ycbcr:conv4", "side by side are for images")):
        with pytest.raises(ValueError, match=words):
            insist_encoder(name)
    insist_encoder("slow50x8")
