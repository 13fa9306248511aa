"""Encoders of images: conv4 for small drawings, and every network of timm by its name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nearfar.method import Encoder, Stage

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMALL = 64
"""Up to this side a ResNet gets the small stem: its own shrinks an image four-fold before the first block."""


class ImageEncoder(Encoder):
    """A network behind the normalization that its images need: N x C x H x W in [0, 1] -> N x dim.

    net: the network itself; its state dict is what is exported.  dim: the width of the representation.
    spec: what `from_spec` needs to build it again (plain JSON types).  notes: sentences for the user.
    mean, std: C x 1 x 1, in units of [0, 1].
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
            raise ValueError(
                f"the encoder takes images N x {len(self.mean)} x H x W, got {' x '.join(map(str, x.shape))}; "
                f"build it with channels={x.shape[1] if x.dim() == 4 else 'C'}, or convert the images"
            )
        return self.net(self._prepared(x))  # N x dim

    def _prepared(self, x: Tensor) -> Tensor:
        x = (x - self.mean) / self.std  # N x C x H x W
        return x.contiguous(memory_format=torch.channels_last)

    def stages(self) -> list[Stage]:
        """Of conv4 its four blocks, of a ResNet of timm its four stages, with the stem in the first; and the pooling.

        Other networks raise ValueError.
        """
        parts = dict(self.net.named_children())
        if self.spec["name"] == "conv4":
            layers = list(parts.values())
            blocks = [layers[4 * i : 4 * i + 4] for i in range(len(CONV4))]
            widths, pool = list(CONV4), layers[4 * len(CONV4) :]
        elif list(parts) == _RESNET:
            layers = list(parts.values())
            blocks = [layers[:5], *([layer] for layer in layers[5:8])]
            features: Any = self.net.feature_info
            widths, pool = [features[i]["num_chs"] for i in range(1, 5)], layers[8:]
        else:
            raise ValueError(f"{self.spec['name']} cannot be had in stages: use conv4, or a ResNet of timm")
        blocks = [[_Prepare(self._prepared), *blocks[0]], *blocks[1:], pool]
        return [Stage(*block, dim=width) for block, width in zip(blocks, [*widths, self.dim], strict=True)]

    def streams(self) -> list[Stage]:
        """The networks of an encoder such as ycbcr:resnet18, each of which takes the image and sees its part."""
        if not isinstance(self.net, Streams):
            return super().streams()
        return [
            Stage(_Prepare(self._prepared), stream, dim=dim)
            for stream, dim in zip(self.net, self.net.dims, strict=True)
        ]

    def example(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Images of noise to try it on."""
        side = self.spec["size"]
        return torch.rand(n, self.spec["channels"], side, side, generator=generator)

    def source(self) -> tuple[list[str], bool]:
        """The lines of Python that build `net` from torch and timm alone, and whether it is timm's unchanged."""
        return source(self)

    def encode_lines(self) -> list[str]:
        """The lines of Python that make features of images."""
        spec = self.spec
        return [
            f"mean = torch.tensor({spec['mean']}).view(-1, 1, 1)",
            f"std = torch.tensor({spec['std']}).view(-1, 1, 1)",
            "",
            "",
            "def encode(x):",
            f'    """N x {spec["channels"]} x {spec["size"]} x {spec["size"]} images in [0, 1] -> N x {self.dim}.',
            "",
            f"    Of an image: {_resize(spec)}.",
            '    """',
            "    return net((x - mean) / std)",
        ]

    def preparation(self) -> dict[str, Any]:
        """What an image must be made before it is encoded."""
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


class Streams(nn.ModuleList):
    """Networks side by side, each behind a fixed 1x1 convolution that chooses or mixes channels: -> N x sum of widths.

    mixes: c x C for each network, the channels that it sees, in those of the image.  dims: their widths.
    """

    def __init__(self, nets: list[nn.Module], mixes: list[Tensor], dims: list[int]) -> None:
        super().__init__()
        self.dims = dims
        for net, mix in zip(nets, mixes, strict=True):
            conv = nn.Conv2d(mix.shape[1], mix.shape[0], 1, bias=False).requires_grad_(False)
            conv.weight.copy_(mix[:, :, None, None])
            self.append(nn.Sequential(conv, net))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([stream(x) for stream in self], 1)


_RESNET = ["conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3", "layer4", "global_pool", "fc"]


class _Prepare(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def _resize(spec: dict[str, Any]) -> str:
    # The test view of the library (views.image.plain).
    side = "as large as its short side" if spec["size"] <= 64 else "of 224/256 of its short side"
    return f"the middle square {side}, resized to {spec['size']} x {spec['size']} (bilinear, antialiased)"


def image_encoder(
    name: str,
    *,
    channels: int = 3,
    size: int = 224,
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
    if channels < 1 or size < 1:
        raise ValueError(f"an image has one channel or more and a side in pixels, got channels={channels}, size={size}")
    if mean is None:
        mean = IMAGENET_MEAN if channels == 3 else (0.5,) * channels
    if std is None:
        std = IMAGENET_STD if channels == 3 else (0.5,) * channels
    if len(mean) != channels or len(std) != channels or min(std) <= 0:
        raise ValueError(f"mean {list(mean)} and std {list(std)} must have {channels} values each, and std be positive")
    net, small_stem, notes = _net(name, channels=channels, size=size, small_stem=small_stem, std=std)
    spec = {
        "name": name,
        "channels": channels,
        "size": size,
        "mean": [float(m) for m in mean],
        "std": [float(s) for s in std],
        "small_stem": small_stem,
    }
    dim = _width(net, name, channels=channels, size=size)
    if weights is not None:
        notes += load_weights(net, weights)
    return ImageEncoder(net, dim, spec, notes)


def from_spec(spec: dict[str, Any]) -> ImageEncoder:
    """The encoder that `ImageEncoder.spec` describes, with random weights."""
    wanted = {"name", "channels", "size", "mean", "std", "small_stem"}
    if set(spec) != wanted:
        raise ValueError(f"an encoder's spec has the keys {sorted(wanted)}, got {sorted(spec)}")
    return image_encoder(
        spec["name"],
        channels=spec["channels"],
        size=spec["size"],
        mean=spec["mean"],
        std=spec["std"],
        small_stem=spec["small_stem"],
    )


def source(encoder: ImageEncoder) -> tuple[list[str], bool]:
    """The lines of Python that build `encoder.net` from torch and timm alone, and whether it is timm's unchanged."""
    name, channels, net = encoder.spec["name"], encoder.spec["channels"], encoder.net
    if not isinstance(net, Streams):
        return _source(encoder.spec, name, channels, net)
    lines = ["streams = []"]
    for stream in net.children():
        mix, inner = stream.children()
        seen = mix.get_parameter("weight").shape[0]
        lines += _source(encoder.spec, name.rpartition(":")[2], seen, inner)[0]
        lines.append(f"streams.append(torch.nn.Sequential(torch.nn.Conv2d({channels}, {seen}, 1, bias=False), net))")
    return [
        *lines,
        "",
        "",
        "class Streams(torch.nn.ModuleList):",
        "    def forward(self, x):",
        "        return torch.cat([stream(x) for stream in self], 1)",
        "",
        "",
        "net = Streams(streams)",
    ], False


def _source(spec: dict[str, Any], name: str, channels: int, net: Any) -> tuple[list[str], bool]:
    if name == "conv4":
        return [
            "def block(a, b):",
            "    conv = torch.nn.Conv2d(a, b, 3, padding=1, bias=False)",
            "    return conv, torch.nn.MaxPool2d(2), torch.nn.BatchNorm2d(b), torch.nn.ReLU()",
            "",
            "",
            "blocks = " + ", ".join(f"*block({a}, {b})" for a, b in pairwise((channels, *CONV4))),
            "net = torch.nn.Sequential(*blocks, torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())",
        ], False
    img_size = f", img_size={spec['size']}" if _fixed(name) not in (None, spec["size"]) else ""
    lines = [f'net = timm.create_model("{name}", num_classes=0, in_chans={channels}{img_size})']
    if spec["small_stem"]:
        if isinstance(net.conv1, nn.Sequential):
            lines.append("net.conv1[0].stride = (1, 1)")
        else:
            lines.append(f"net.conv1 = torch.nn.Conv2d({channels}, {net.conv1.out_channels}, 3, padding=1, bias=False)")
        lines.append("net.maxpool = torch.nn.Identity()")
    return lines, len(lines) == 1 and not img_size


CONV4 = (32, 64, 128, 128)


def conv4(channels: int) -> nn.Sequential:
    """Four blocks of 3x3 convolution, max-pool, batch norm and ReLU, then 2 x 2 cells: N x C x H x W -> N x 512.

    The small network of few-shot learning (arXiv 1606.04080), for sides from 16 pixels. Pooling comes before norm and
    ReLU, and the first blocks are narrow: on a CPU that trains more than twice as many images a second.
    """
    layers: list[nn.Module] = []
    for before, after in pairwise((channels, *CONV4)):
        layers.append(nn.Conv2d(before, after, 3, padding=1, bias=False))
        layers += [nn.MaxPool2d(2), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())


def _net(
    name: str, *, channels: int, size: int, small_stem: bool | None, std: Sequence[float]
) -> tuple[nn.Module, bool, list[str]]:
    sights, colon, inner = name.rpartition(":")
    if not colon:
        if name != "conv4":
            return _timm_net(name, channels=channels, size=size, small_stem=small_stem)
        if small_stem:
            raise ValueError("small_stem=True is for the ResNets of timm; conv4 has no stem, so leave it out")
        return conv4(channels), False, []
    mixes = _mixes(sights, channels, std)
    made = [_net(inner, channels=len(mix), size=size, small_stem=small_stem, std=std) for mix in mixes]
    nets = [net for net, _, _ in made]
    dims = [_width(net, inner, channels=len(mix), size=size) for net, mix in zip(nets, mixes, strict=True)]
    with torch.no_grad():
        return Streams(nets, mixes, dims), made[0][1], made[0][2]


def _mixes(sights: str, channels: int, std: Sequence[float]) -> list[Tensor]:
    """What each stream sees: c x C, of unit length a row, for images that were divided by `std`."""
    if sights == "ycbcr":
        if channels != 3:
            raise ValueError(
                f"ycbcr is for color images, and these have {channels} channel(s): name the channels of each "
                "network instead, such as 0+0:conv4 for two that see the same one"
            )
        rows = torch.tensor(_YCBCR) * torch.tensor(std)  # undoes the division
        rows = rows / rows.norm(dim=1, keepdim=True)
        return [rows[:1], rows[1:]]
    try:
        numbers = [[int(word) for word in part.split(",")] for part in sights.split("+")]
    except ValueError:
        numbers = []
    if len(numbers) < 2 or not all(0 <= number < channels for part in numbers for number in part):
        raise ValueError(
            f'"{sights}:" does not say what each of several networks sees: wanted ycbcr, or channels from 0 to '
            f"{channels - 1} for two networks or more, such as 0,1+2:conv4"
        )
    return [torch.eye(channels)[part] for part in numbers]


_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
"""Lightness, and how blue and how red (ITU-R BT.601), of red, green and blue."""


def _timm_net(name: str, *, channels: int, size: int, small_stem: bool | None) -> tuple[nn.Module, bool, list[str]]:
    import timm  # takes a second, so only when one of its networks is asked for
    from timm.models.resnet import ResNet

    if not timm.is_model(name):
        names = ["conv4", *timm.list_models()]
        close = difflib.get_close_matches(name, names, n=4, cutoff=0.5)
        hint = f"did you mean {', '.join(close)}?" if close else "timm.list_models() shows them all"
        raise ValueError(f'no encoder is called "{name}" (conv4 and the {len(names) - 1} networks of timm are): {hint}')
    fixed = _fixed(name)
    try:
        if fixed not in (None, size):
            net = timm.create_model(name, pretrained=False, num_classes=0, in_chans=channels, img_size=size)
        else:
            net = timm.create_model(name, pretrained=False, num_classes=0, in_chans=channels)
    except Exception as error:  # whatever a stranger's constructor makes of a size
        own = f"; it is made for {fixed} px" if fixed else ""
        raise ValueError(f"{name} cannot be built for {channels} channels and {size} px: {error}{own}") from error
    notes = []
    if small_stem and not isinstance(net, ResNet):
        raise ValueError(
            f"small_stem=True is for the ResNets of timm; {name} is a {type(net).__name__}, so leave it out"
        )
    small_stem = isinstance(net, ResNet) and (size <= SMALL if small_stem is None else small_stem)
    if small_stem:
        _shrink_stem(net)
        notes.append(
            f"{name} begins with a 3x3 convolution of stride 1 and no max-pool, as fits images of {size} px; "
            "the stem of large images would lose their detail (small_stem=False keeps it)."
        )
    elif fixed is None and (shrink := _reduction(net)) and size < 2 * shrink:
        notes.append(
            f"{name} shrinks images {shrink}-fold, which leaves {-(-size // shrink)} x {-(-size // shrink)} cells "
            f"of {size} px: larger views, or a ResNet (which adapts its stem), would keep more."
        )
    return net, small_stem, notes


def _fixed(name: str) -> int | None:
    """The side in pixels that a network of timm is built for; None where it takes any."""
    import timm

    config = timm.get_pretrained_cfg(name)
    assert config is not None
    return config.input_size[-1] if config.fixed_input_size else None


def _shrink_stem(net: Any) -> None:
    if isinstance(net.conv1, nn.Sequential):  # a deep stem: three 3x3 convolutions, the first of stride 2
        net.conv1[0].stride = (1, 1)  # pyright: ignore[reportArgumentType]
    else:
        net.conv1 = nn.Conv2d(net.conv1.in_channels, net.conv1.out_channels, 3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")  # as timm's
    net.maxpool = nn.Identity()


def _reduction(net: Any) -> int:
    features = getattr(net, "feature_info", None)
    return max((stage["reduction"] for stage in features), default=0) if isinstance(features, list) else 0


def _width(net: nn.Module, name: str, *, channels: int, size: int) -> int:
    # Asked of the network: timm's num_features is not the width of the output for every family (MobileNetV3).
    net.eval()
    try:
        with torch.no_grad():
            out = net(torch.zeros(1, channels, size, size))
    except Exception as error:  # as above
        raise ValueError(f"{name} cannot take images of {size} x {size} px ({error}): choose another size") from error
    finally:
        net.train()
    if not isinstance(out, Tensor) or out.dim() != 2:
        shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ValueError(f"{name} gives {shape} for one image, wanted one vector; choose another network")
    return out.shape[1]


def load_weights(net: nn.Module, path: str | Path) -> list[str]:
    """Fill `net` from a file, every entry of it or nothing; returns notes on what in the file was left over.

    path: a .safetensors file, or a torch file that holds only tensors (a state dict, plain or under "state_dict" or
        "model"). A common prefix of the keys ("module.encoder_q.") is found and left out.
    """
    path = Path(path)
    found = _read(path)
    wanted = net.state_dict()
    first = next(iter(wanted))
    prefixes = [key.removesuffix(first) for key in found if key == first or key.endswith("." + first)]
    fitting = [p for p in prefixes if all(p + key in found for key in wanted)]
    if "" in fitting:
        fitting = [""]
    if len(fitting) > 1:
        raise ValueError(f"{path} holds {len(fitting)} networks of this kind, under {fitting}; save one of them apart")
    if not fitting:
        best = max(prefixes, key=lambda p: sum(p + key in found for key in wanted), default="")
        missing = [key for key in wanted if best + key not in found]
        raise ValueError(
            f"{path} has {len(wanted) - len(missing)} of the {len(wanted)} entries of this network (missing: "
            f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}; the file has {', '.join(list(found)[:3])}"
            "); nothing was loaded: name the encoder that these weights belong to"
        )
    prefix = fitting[0]
    wrong = [key for key, value in wanted.items() if found[prefix + key].shape != value.shape]
    if wrong:
        key = wrong[0]
        raise ValueError(
            f"{len(wrong)} of the {len(wanted)} entries of {path} have another shape than this network (such as {key}: "
            f"{tuple(found[prefix + key].shape)}, wanted {tuple(wanted[key].shape)}); nothing was loaded: check "
            "channels, size and small_stem"
        )
    net.load_state_dict({key: found[prefix + key] for key in wanted})
    notes = [f"All {len(wanted)} entries of the network were loaded from {path}."]
    if left := [key for key in found if key.removeprefix(prefix) not in wanted or not key.startswith(prefix)]:
        notes.append(f"{len(left)} entries of {path} belong to no part of the encoder, such as {left[0]}.")
    return notes


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of weights at {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as weights ({error}); it may be cut short") from error
    except Exception as error:  # torch raises pickle's own errors for a file that holds more than tensors
        raise ValueError(f"{path} is no file of plain tensors, and code in it is never run: {error}") from error
    for key in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"{path} holds no state dict: wanted names and tensors, plain or under state_dict or model")
    return found
