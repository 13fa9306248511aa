"""Encoders of images: conv4 for small drawings, every network of timm by its name, and several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.errors import UserError
from nearfar.method import Encoder, Stage
from nearfar.modalities import timm_nets
from nearfar.modalities.image.networks import build, conv4
from nearfar.modalities.image.networks.streams import Streams
from nearfar.nn.apply import Apply
from nearfar.nn.weights import load_weights
from nearfar.ranges import PositiveInt, checked

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ImageEncoder(Encoder):
    """A network behind the normalization that its images need: N x C x H x W in [0, 1] -> N x dim.

    net: the network itself; its state dict is what is exported.  mean, std: C x 1 x 1, in units of [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, dim: int, spec: dict[str, Any], notes: list[str]) -> None:
        super().__init__()
        # Convolutions on a CPU are up to 1.6 times faster so, and those of a GPU's tensor cores want it too.
        self.net = net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.dim, self.spec, self.notes = dim, spec, notes
        self.register_buffer("mean", torch.tensor(spec["mean"]).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(spec["std"]).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or x.shape[1] != len(self.mean):
            raise UserError(
                f"the encoder takes images N x {len(self.mean)} x H x W, got {' x '.join(map(str, x.shape))}; "
                f"build it with channels={x.shape[1] if x.dim() == 4 else 'C'}, or convert the images"
            )
        return self.net(self._normalized(x))  # N x dim

    def _normalized(self, x: Tensor) -> Tensor:
        x = (x - self.mean) / self.std  # N x C x H x W
        return x.contiguous(memory_format=torch.channels_last)

    def stages(self) -> list[Stage]:
        """Of conv4 its four blocks, of a ResNet of timm its four stages, with the stem in the first; and the pooling.

        Other networks raise ValueError.
        """
        if self.spec["name"] == "conv4" and isinstance(self.net, nn.Sequential):
            blocks, widths, pool = conv4.parts(self.net)
        elif timm_nets.is_resnet(self.net):
            blocks, widths, pool = timm_nets.parts(self.net)
        else:
            return super().stages()
        blocks = [[Apply(self._normalized), *blocks[0]], *blocks[1:], pool]
        return [Stage(*block, dim=width) for block, width in zip(blocks, [*widths, self.dim], strict=True)]

    def maps(self, view: Tensor) -> list[Tensor]:
        """Of conv4 and ResNets what their stages give; of any other network of timm what it gives at four depths, or as
        many as it has, the last behind its last norm. Tokens of transformers are maps, without those that stand for
        the whole image.

        Others raise ValueError.
        """
        return timm_nets.maps(self.net, self._normalized(view)) if self._intermediate else super().maps(view)

    @property
    def map_dim(self) -> int:
        return timm_nets.map_dim(self.net) if self._intermediate else super().map_dim

    def with_map(self, view: Tensor) -> tuple[Tensor, Tensor]:
        return timm_nets.with_map(self.net, self._normalized(view)) if self._intermediate else super().with_map(view)

    @property
    def _intermediate(self) -> bool:
        """Whether its maps are what timm gives of a network that has no stages here."""
        return hasattr(self.net, "forward_intermediates") and not timm_nets.is_resnet(self.net)

    def looked_at(self) -> nn.Module:
        """Of conv4 and ResNets their last stage; of transformers what their last block takes; of any other network of
        timm its last stage."""
        if self.spec["name"] != "conv4" and not timm_nets.is_resnet(self.net):
            return timm_nets.looked_at(self.net, self._name)
        return self.stages()[-2].layers[-1]

    def streams(self) -> list[Stage]:
        """The networks of an encoder such as ycbcr:resnet18, each of which takes the image and sees its part."""
        if not isinstance(self.net, Streams):
            return super().streams()
        return [
            Stage(Apply(self._normalized), stream, dim=dim) for stream, dim in zip(self.net, self.net.dims, strict=True)
        ]

    def example(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Images of noise: n x C x size x size."""
        return example(self.spec, n, generator)

    def network(self) -> nn.Module:
        return self.net

    def source(self) -> tuple[list[str], bool]:
        spec = self.spec
        kept = {key: spec[key] for key in ("channels", "size", "small_stem")}
        return build.source(self.net, spec["name"], **kept)

    def encode_lines(self) -> list[str]:
        spec = self.spec
        takes = f"N x {spec['channels']} x {spec['size']} x {spec['size']} images in [0, 1] -> N x {self.dim}."
        return encode_lines(spec, takes, f"Of an image: {_resize(spec)}.")

    def preparation(self) -> dict[str, Any]:
        spec = self.spec
        return {
            "layout": "N x C x H x W, RGB" if spec["channels"] == 3 else "N x C x H x W",
            "range": [0, 1],
            "channels": spec["channels"],
            "size": spec["size"],
            "resize": _resize(spec),
            "mean": spec["mean"],
            "std": spec["std"],
        }


def encode_lines(spec: dict[str, Any], takes: str, seen: str, order: str = "") -> list[str]:
    """`encode` of an exported encoder.py, which normalizes by the mean and deviation of a spec.

    takes, seen: its docstring.  order: what brings the axes into the order of the network.
    """
    return [
        f"mean = torch.tensor({spec['mean']}).view(-1, 1, 1)",
        f"std = torch.tensor({spec['std']}).view(-1, 1, 1)",
        "",
        "",
        "def encode(x):",
        f'    """{takes}',
        "",
        f"    {seen}",
        '    """',
        f"    return net({f'((x - mean) / std){order}' if order else '(x - mean) / std'})",
    ]


def _resize(spec: dict[str, Any]) -> str:
    # The plain view of the library: views.plain.
    side = "as large as its short side" if spec["size"] <= 64 else "of 224/256 of its short side"
    return f"the middle square {side}, resized to {spec['size']} x {spec['size']} (bilinear, antialiased)"


@checked
def image_encoder(
    name: str,
    *,
    channels: PositiveInt = 3,
    size: PositiveInt = 224,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    small_stem: bool | None = None,
    weights: str | Path | None = None,
) -> ImageEncoder:
    """The encoder called `name`: "conv4", or any network of timm, with random weights unless `weights` are given.

    "ycbcr:NAME" is two networks of that name side by side, for the lightness of a color image and for its two
    chroma channels; "0,1,2+3:NAME" is one for the channels 0 to 2 and one for channel 3, and so on.
    channels: 1 for gray images, 3 for color.  size: the side of the views in pixels; transformers take no other.
    mean, std: per channel, in units of [0, 1]; ImageNet's for three channels and 0.5 otherwise.
    small_stem: 3x3 convolution of stride 1 and no max-pool at the start of a ResNet (arXiv 2002.05709, B.9);
        None means: where size <= 64.
    weights: a .safetensors file, or a torch file of tensors, whose keys hold every key of the network.
    Raises ValueError for an unknown name, a size that the network cannot take, and weights that do not fit.
    """
    if mean is None:
        mean = IMAGENET_MEAN if channels == 3 else (0.5,) * channels
    if std is None:
        std = IMAGENET_STD if channels == 3 else (0.5,) * channels
    if len(mean) != channels or len(std) != channels or min(std) <= 0:
        raise UserError(f"mean {list(mean)} and std {list(std)} must have {channels} values each, and std be positive")
    net, small_stem, notes = build.build(name, channels=channels, size=size, small_stem=small_stem, std=std)
    spec = {
        "kind": "image",
        "name": name,
        "channels": channels,
        "size": size,
        "mean": [float(m) for m in mean],
        "std": [float(s) for s in std],
        "small_stem": small_stem,
    }
    dim = build.width(net, name, channels=channels, size=size)
    if weights is not None:
        notes += load_weights(net, weights)
    return ImageEncoder(net, dim, spec, notes)


def from_spec(spec: dict[str, Any]) -> ImageEncoder:
    """The encoder that `ImageEncoder.spec` describes, with random weights."""
    wanted = {"kind", "name", "channels", "size", "mean", "std", "small_stem"}
    if set(spec) != wanted:
        raise UserError(f"the spec of an image encoder has the keys {sorted(wanted)}, got {sorted(spec)}")
    return image_encoder(**{key: value for key, value in spec.items() if key != "kind"})


def inputs(data: Any, facts: dict[str, Any]) -> dict[str, Any]:
    """What the spec of a user's own encoder says of the images that it takes."""
    return {"channels": facts["channels"], "size": facts["size"]}


def example(spec: dict[str, Any], n: int, generator: torch.Generator | None = None) -> Tensor:
    """Images of noise for an encoder with that spec: n x C x size x size."""
    return torch.rand(n, spec["channels"], spec["size"], spec["size"], generator=generator)
