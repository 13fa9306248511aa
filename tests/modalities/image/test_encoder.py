from __future__ import annotations

import json
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nearfar.modalities import timm_nets
from nearfar.modalities.image.encoder import ImageEncoder, from_spec, image_encoder
from nearfar.nn.norms import split_norms


def images(n: int, channels: int, size: int) -> Tensor:
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "channels", "size", "dim"),
    [
        ("conv4", 1, 32, 512),
        ("conv4", 3, 16, 512),
        ("conv4", 1, 105, 512),
        ("test_resnet", 3, 32, 96),
        ("ycbcr:test_resnet", 3, 32, 192),
        ("0+0:conv4", 1, 32, 1024),
        ("resnet10t", 1, 32, 512),
        ("test_vit", 3, 96, 64),
        ("test_vit", 3, 160, 64),
        ("test_efficientnet", 3, 96, 256),
        ("mobilenetv3_small_050", 5, 96, 1024),  # timm says num_features = 288
    ],
)
def test_every_kind_gives_vectors_and_is_built_again_from_its_spec(
    name: str, channels: int, size: int, dim: int
) -> None:
    encoder = image_encoder(name, channels=channels, size=size)
    assert encoder.dim == dim
    assert encoder.training
    encoder(images(3, channels, size)).square().mean().backward()
    assert all(p.grad is not None for p in encoder.parameters() if p.requires_grad)
    again = from_spec(json.loads(json.dumps(encoder.spec)))
    assert again.spec == encoder.spec
    again.load_state_dict(encoder.state_dict())
    x = images(2, channels, size)
    torch.testing.assert_close(again.eval()(x), encoder.eval()(x))


@pytest.mark.parametrize(
    ("name", "channels", "size", "widths"),
    [
        ("conv4", 1, 32, [32, 64, 128, 128, 512]),
        ("test_resnet", 3, 32, [32, 48, 192, 96, 96]),
        ("test_resnet", 3, 96, [32, 48, 192, 96, 96]),
        ("resnet18", 3, 32, [64, 128, 256, 512, 512]),
        ("resnet10t", 3, 64, [64, 128, 256, 512, 512]),
    ],
)
def test_stages_are_the_encoder(name: str, channels: int, size: int, widths: list[int]) -> None:
    encoder = image_encoder(name, channels=channels, size=size).eval()
    x, stages = images(2, channels, size), encoder.stages()
    assert [stage.dim for stage in stages] == widths
    maps = encoder.maps(x)
    assert [m.shape[:2] for m in maps] == [(2, width) for width in widths[:-1]]
    sides = [m.shape[2] for m in maps]
    assert sides == [m.shape[3] for m in maps] == sorted(sides, reverse=True)
    torch.testing.assert_close(stages[-1](maps[-1]), encoder(x))
    theirs = [p for stage in stages for p in stage.parameters()]
    assert [id(p) for p in theirs] == [id(p) for p in encoder.parameters()]
    assert list(encoder.state_dict()) == list(image_encoder(name, channels=channels, size=size).state_dict())
    # What stands in the encoder now is what they are made of, even where a layer was replaced.
    split_norms(encoder, 2)
    norms = [m for stage in encoder.stages() for m in stage.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms == []


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("test_vit", [(64, 6, 6)] * 4),
        ("test_convnext", [(24, 24, 24), (32, 12, 12), (48, 6, 6), (64, 3, 3)]),
    ],
)
def test_networks_without_stages_have_maps(name: str, shapes: list[tuple[int, ...]]) -> None:
    encoder = image_encoder(name, size=96).eval()
    x = images(2, 3, 96)
    maps = encoder.maps(x)
    assert [tuple(m.shape[1:]) for m in maps] == shapes
    row, last = encoder.with_map(x)
    assert encoder.map_dim == shapes[-1][0]
    torch.testing.assert_close(last, maps[-1])
    torch.testing.assert_close(row, encoder(x))
    net: Any = encoder.net
    tokens = net.forward_features((x - encoder.mean) / encoder.std)
    tokens = tokens[:, -maps[-1][0, 0].numel() :].mT.reshape(maps[-1].shape) if tokens.dim() == 3 else tokens
    torch.testing.assert_close(maps[-1], tokens)
    with pytest.raises(ValueError, match=f"{name} cannot be had in stages: use conv4"):
        encoder.stages()


def test_maps_of_a_network_without_a_norm_behind_them() -> None:
    class Hiera:  # as timm's refuses it
        def forward_intermediates(self, x: Tensor, norm: bool = False, **how: Any) -> list[Tensor]:
            assert not norm, "normalization of features not supported"
            return [x, 2 * x]

    x = images(1, 3, 8)
    assert [torch.equal(made, k * x) for k, made in enumerate(timm_nets.maps(Hiera(), x), 1)] == [True, True]


def test_networks_side_by_side_have_no_maps() -> None:
    encoder = image_encoder("0+1:conv4", channels=2, size=32)
    with pytest.raises(ValueError, match=r"0\+1:conv4 has no maps"):
        encoder.maps(encoder.example(1))


@pytest.mark.parametrize(
    ("name", "channels", "size", "sees"),
    [
        ("0+0:conv4", 1, 32, [[0], [0]]),
        ("0,2+1:conv4", 3, 16, [[0, 2], [1]]),
        ("0+1+2,3,4:conv4", 5, 16, [[0], [1], [2, 3, 4]]),
        ("0,1,2+3:test_resnet", 4, 32, [[0, 1, 2], [3]]),
    ],
)
def test_streams_see_their_channels_and_are_the_encoder_side_by_side(
    name: str, channels: int, size: int, sees: list[list[int]]
) -> None:
    encoder = image_encoder(name, channels=channels, size=size).eval()
    x, streams = images(2, channels, size), encoder.streams()
    parts = [stream(x) for stream in streams]
    assert [stream.dim for stream in streams] == [part.shape[1] for part in parts]
    torch.testing.assert_close(torch.cat(parts, 1), encoder(x))
    assert encoder.dim == sum(stream.dim for stream in streams)
    for channel in range(channels):
        other = x.clone()
        other[:, channel] = 1 - other[:, channel]
        felt = [not torch.allclose(stream(other), part) for stream, part in zip(streams, parts, strict=True)]
        assert felt == [channel in part for part in sees]
    theirs = {id(p) for stream in streams for p in stream.parameters()}
    assert theirs == {id(p) for p in encoder.parameters()}


def test_lightness_and_color_are_streams_of_their_own() -> None:
    encoder = image_encoder("ycbcr:conv4", size=16, mean=[0.4, 0.5, 0.6], std=[0.1, 0.2, 0.3]).eval()
    light, color = encoder.streams()
    x = 0.3 + 0.4 * images(2, 3, 16)
    brighter = x + 0.1  # as much of each color: a change of lightness alone
    assert not torch.allclose(light(x), light(brighter), atol=1e-3)
    torch.testing.assert_close(color(x), color(brighter), atol=1e-4, rtol=1e-4)
    redder = x + 0.1 * torch.tensor([1.0, -0.299 / 0.587, 0.0]).view(3, 1, 1)
    torch.testing.assert_close(light(x), light(redder), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(color(x), color(redder), atol=1e-3)


def test_streams_that_are_none_are_named() -> None:
    with pytest.raises(ValueError, match=r"ycbcr is for color images, and these have 1 channel"):
        image_encoder("ycbcr:conv4", channels=1, size=16)
    for sights in ("0", "0+3", "0+a", "0,1", "0+-1"):
        with pytest.raises(ValueError, match=r"channels from 0 to 2 for two networks"):
            image_encoder(f"{sights}:conv4", size=16)
    with pytest.raises(ValueError, match=r"conv4 is one network.* such as ycbcr:resnet18"):
        image_encoder("conv4", size=16).streams()
    with pytest.raises(ValueError, match=r'"resnt18".*resnet18'):
        image_encoder("ycbcr:resnt18")
    with pytest.raises(ValueError, match="ycbcr:conv4 cannot be had in stages"):
        image_encoder("ycbcr:conv4", size=16).stages()


def test_images_are_normalized_first() -> None:
    encoder = image_encoder("conv4", channels=3, size=16, mean=[0.1, 0.2, 0.3], std=[0.5, 1.0, 2.0]).eval()
    x = images(2, 3, 16)
    by_hand = torch.stack([(x[:, 0] - 0.1) / 0.5, (x[:, 1] - 0.2) / 1.0, (x[:, 2] - 0.3) / 2.0], dim=1)
    torch.testing.assert_close(encoder(x), encoder.net(by_hand))


def test_default_normalization_depends_on_the_channels() -> None:
    assert image_encoder("conv4", size=16).spec["mean"] == [0.485, 0.456, 0.406]
    assert image_encoder("conv4", channels=1, size=16).spec["std"] == [0.5]


def convolutions(encoder: ImageEncoder) -> list[nn.Conv2d]:
    return [layer for layer in encoder.net.modules() if isinstance(layer, nn.Conv2d)]


@pytest.mark.parametrize("name", ["resnet18", "resnet10t"])
def test_small_images_get_the_small_stem(name: str) -> None:
    small, large = image_encoder(name, size=64), image_encoder(name, size=96)
    first = convolutions(small)[0]
    assert (first.kernel_size, first.stride, first.padding) == ((3, 3), (1, 1), (1, 1))
    assert isinstance(small.net.maxpool, nn.Identity)
    assert small.spec["small_stem"]
    assert len(small.notes) == 1
    assert "small_stem=False" in small.notes[0]
    assert convolutions(large)[0].stride == (2, 2)
    assert not large.spec["small_stem"]
    assert large.notes == []


def test_the_stem_can_be_forced() -> None:
    assert image_encoder("test_resnet", size=32, small_stem=False).spec["small_stem"] is False
    assert image_encoder("test_resnet", size=160, small_stem=True).spec["small_stem"] is True
    with pytest.raises(ValueError, match="test_vit is a VisionTransformer"):
        image_encoder("test_vit", size=160, small_stem=True)
    with pytest.raises(ValueError, match="conv4 has no stem"):
        image_encoder("conv4", size=32, small_stem=True)


def test_a_network_that_shrinks_small_images_to_nothing_says_so() -> None:
    (note,) = image_encoder("test_efficientnet", size=32).notes
    assert "32-fold" in note
    assert "1 x 1" in note


def test_wrong_names_are_answered_with_near_ones() -> None:
    with pytest.raises(ValueError, match=r'"resnt18".*resnet18'):
        image_encoder("resnt18")
    with pytest.raises(ValueError, match=r'"con4".*conv4'):
        image_encoder("con4")
    with pytest.raises(ValueError, match="hf-hub"):
        image_encoder("hf-hub:timm/resnet18")  # would be a download


def test_wrong_sizes_and_images_are_named() -> None:
    with pytest.raises(ValueError, match="conv4 cannot take images of 8 x 8 px"):
        image_encoder("conv4", size=8)
    with pytest.raises(ValueError, match="test_vit cannot take images of 8 x 8 px"):
        image_encoder("test_vit", size=8)
    with pytest.raises(ValueError, match=r"twins_pcpvt_small cannot be built .* 30 px.*made for 224 px"):
        image_encoder("twins_pcpvt_small", size=30)
    with pytest.raises(ValueError, match="channels 0"):
        image_encoder("conv4", channels=0)
    with pytest.raises(ValueError, match=r"N x 1 x H x W, got 2 x 3 x 16 x 16.*channels=3"):
        image_encoder("conv4", channels=1, size=16)(images(2, 3, 16))
    with pytest.raises(ValueError, match="3 values"):
        image_encoder("conv4", size=16, mean=[0.5])
    with pytest.raises(ValueError, match=r"got \['name'\]"):
        from_spec({"name": "conv4"})


def test_weights_come_from_a_file(tmp_path: Path) -> None:
    first = image_encoder("conv4", channels=1, size=16)
    torch.save({"epoch": 3, "state_dict": OrderedDict(first.net.state_dict())}, tmp_path / "c.pth")
    second = image_encoder("conv4", channels=1, size=16, weights=tmp_path / "c.pth")
    x = first.example(2)
    assert torch.equal(second.eval()(x), first.eval()(x))
    assert len(second.notes) == 1
    with pytest.raises(ValueError, match=r"1 of the 24 entries.*\(32, 1, 3, 3\), wanted \(32, 3, 3, 3\)"):
        image_encoder("conv4", channels=3, size=16, weights=tmp_path / "c.pth")


def test_timm_is_imported_only_when_named() -> None:
    code = (
        "import sys; from nearfar.modalities.image.encoder import image_encoder; image_encoder('conv4', size=16); "
        "from nearfar import optim; from nearfar.nn import heads, norms; sys.exit('timm' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}).returncode == 0


def test_source_builds_the_same_keys() -> None:
    encoder = image_encoder("resnet18", channels=1, size=32)
    lines, plain = encoder.source()
    assert not plain
    assert lines == [
        'net = timm.create_model("resnet18", num_classes=0, in_chans=1)',
        "net.conv1 = torch.nn.Conv2d(1, 64, 3, padding=1, bias=False)",
        "net.maxpool = torch.nn.Identity()",
    ]
