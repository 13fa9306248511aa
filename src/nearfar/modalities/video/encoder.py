"""Encoders of clips: networks of torchvision, the slow-only network of CVRL, and networks of images on each frame."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from nearfar.errors import UserError
from nearfar.method import Encoder, Stage
from nearfar.modalities.image.encoder import IMAGENET_MEAN, IMAGENET_STD, encode_lines, image_encoder
from nearfar.modalities.video import networks
from nearfar.modalities.video.networks import FrameNet, Pooled, slow_only, torchvision_stages
from nearfar.modalities.video.settings import CLIP_NETWORKS, OverTime, Pooling, slow
from nearfar.nn.apply import Apply

SMALL = 64
"""Sides up to this, in pixels, get a stem without strides in space."""


class VideoEncoder(Encoder):
    """A network behind the normalization of pixels: N x T x 3 x H x W in [0, 1] -> N x dim."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, dim: int, spec: dict[str, Any], notes: Sequence[str] = ()) -> None:
        super().__init__()
        self.net, self.dim, self.spec, self.notes = net, dim, spec, list(notes)
        self.register_buffer("mean", torch.tensor(spec["mean"]).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(spec["std"]).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 5 or x.shape[2] != 3:
            raise UserError(f"the encoder takes clips N x T x 3 x H x W, got {' x '.join(map(str, x.shape))}")
        return self.net(self._prepared(x))

    def _prepared(self, x: Tensor) -> Tensor:
        x = (x - self.mean) / self.std
        return x if isinstance(self.net, FrameNet) else x.transpose(1, 2)  # N x 3 x T x H x W

    def stages(self) -> list[Stage]:
        """Maps are N x C x T x H x W. Of a network of images all of its stages are one."""
        if isinstance(self.net, FrameNet):
            first, *rest = self.net.stages()
        else:
            *layers, pool = cast(nn.Sequential, self.net)
            widths = self.spec["widths"]
            first, *rest = (Stage(layer, dim=width) for layer, width in zip(layers, widths, strict=True))
            rest.append(Stage(pool, dim=self.dim))
        return [Stage(Apply(self._prepared), first, dim=first.dim), *rest]

    def looked_at(self) -> nn.Module:
        """Of a network of images that on each frame, whose maps are NT x C x H x W; else what gives the last maps."""
        if isinstance(self.net, FrameNet):
            return self.net.frame.looked_at()
        return cast(nn.Sequential, self.net)[-2]

    def example(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Clips of noise: n x T x 3 x size x size."""
        return example(self.spec, n, generator)

    def network(self) -> nn.Module:
        return self.net

    def source(self) -> tuple[list[str], bool]:
        """Layers as they stand in `networks`, and what puts them together."""
        name, small_stem = self.spec["name"], self.spec["size"] <= SMALL
        imports = ["from typing import Literal", "from torch import Tensor, nn"]
        if isinstance(self.net, FrameNet):
            return [*imports, *self._frames()], False
        parts, call = [torchvision_stages, Pooled], f'torchvision_stages("{name}")'
        if known := slow(name):
            parts = [networks.conv, networks.Block, slow_only, Pooled]
            call = f"slow_only({known[0]}, {known[1]}, {small_stem=})"
        return [*imports, *_text(*parts), f"net = nn.Sequential(*(stage for stage, _ in {call}), Pooled())"], False

    def _frames(self) -> list[str]:
        net = self.net
        assert isinstance(net, FrameNet)
        over, places = type(net.over), net.place is not None
        made = {
            networks.Mean: "Mean()",
            networks.Attention: f"Attention({net.dim}, {self.spec['frames']})",
            networks.Convolutions: f"Convolutions({net.dim})",
        }[over]
        seen = "self.frame.net(frames)"
        if places:
            maps = "net[:-2]" if self.spec["name"] == "conv4" else "net.forward_features"
            seen = f"self.place(self.frame.{maps}(frames))"
        return [
            *(net.frame.source()[0]),
            *_text(over, *([networks.SpatialSoftArgmax] if places else [])),
            "class Frames(nn.Module):",
            "    def __init__(self, net):",
            "        super().__init__()",
            "        self.frame = nn.Module()",
            "        self.frame.net = net",
            '        self.frame.register_buffer("mean", torch.zeros(3, 1, 1))',
            '        self.frame.register_buffer("std", torch.ones(3, 1, 1))',
            *(["        self.place = SpatialSoftArgmax()"] if places else []),
            f"        self.over = {made}",
            "",
            "    def forward(self, x):",
            "        frames = x.flatten(0, 1)",
            f"        return self.over({seen}.unflatten(0, x.shape[:2]))",
            "",
            "",
            "net = Frames(net)",
        ]

    def encode_lines(self) -> list[str]:
        spec = self.spec
        takes = f"N x {spec['frames']} x 3 x {spec['size']} x {spec['size']} clips in [0, 1] -> N x {self.dim}."
        rate = f", of {spec['fps']:g} a second" if spec["fps"] else ""
        order = "" if isinstance(self.net, FrameNet) else ".transpose(1, 2)"
        return encode_lines(spec, takes, f"Frames lie {spec['stride']} apart{rate}; of each the middle square.", order)

    def preparation(self) -> dict[str, Any]:
        spec = self.spec
        return {
            "layout": "N x T x 3 x H x W, RGB",
            "range": [0, 1],
            "frames": spec["frames"],
            "stride": spec["stride"],
            "fps": spec["fps"],
            "size": spec["size"],
            "mean": spec["mean"],
            "std": spec["std"],
        }


def video_encoder(
    name: str,
    *,
    frames: int,
    size: int,
    stride: int = 1,
    fps: float = 0.0,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    over_time: OverTime = "mean",
    pooling: Pooling = "network",
) -> VideoEncoder:
    """The encoder called `name`, with random weights: see `nearfar.modalities.video.settings.Settings.encoder`.

    frames, stride, fps: of the clips that it is given.  size: their side in pixels.
    Raises ValueError for an unknown name and a size that the network cannot take.
    """
    spec: dict[str, Any] = {
        "kind": "video",
        "name": name,
        "frames": frames,
        "size": size,
        "stride": stride,
        "fps": fps,
        "mean": [float(m) for m in mean],
        "std": [float(s) for s in std],
        "over_time": over_time,
        "pooling": pooling,
    }
    known = slow(name)
    if known is None and name not in CLIP_NETWORKS:
        # The clip is normalized here, so the frame is not again.
        frame = image_encoder(name, size=size, mean=(0.0,) * 3, std=(1.0,) * 3)
        net = FrameNet(frame, over_time, pooling, frames)
        return VideoEncoder(net, net.dim, spec, frame.notes)
    stages = slow_only(*known, small_stem=size <= SMALL) if known else torchvision_stages(name)  # pyright: ignore[reportArgumentType]
    spec["widths"] = [width for _, width in stages]
    return VideoEncoder(nn.Sequential(*(stage for stage, _ in stages), Pooled()), stages[-1][1], spec)


def from_spec(spec: dict[str, Any]) -> VideoEncoder:
    """The encoder that `VideoEncoder.spec` describes, with random weights."""
    return video_encoder(**{key: value for key, value in spec.items() if key not in ("kind", "widths")})


def _text(*parts: Callable[..., object]) -> list[str]:
    """The text of classes and functions, one after the other."""
    return [line for part in parts for line in ["", "", *inspect.getsource(part).rstrip().split("\n")]] + ["", ""]


def example(spec: dict[str, Any], n: int, generator: torch.Generator | None = None) -> Tensor:
    """Clips of noise for an encoder with that spec."""
    return torch.rand(n, spec["frames"], 3, spec["size"], spec["size"], generator=generator)
