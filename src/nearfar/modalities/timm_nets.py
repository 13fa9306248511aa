"""The networks of timm, each by its name, fitted to the channels and the size of the images."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.errors import UserError
from nearfar.modalities.timm_names import insist_network

SMALL = 64
"""Up to this side a ResNet gets the small stem: its own shrinks an image four-fold before the first block."""
RESNET_PARTS = ["conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3", "layer4", "global_pool", "fc"]


def timm_net(name: str, *, channels: int, size: int, small_stem: bool | None) -> tuple[nn.Module, bool, list[str]]:
    """The network, whether it has the small stem, and notes for the user. small_stem: None means where it fits.

    Raises ValueError for an unknown name, a size or channels that the network cannot have, and a small stem of a
    network that is no ResNet.
    """
    import timm  # takes a second, so only when one of its networks is asked for
    from timm.models.resnet import ResNet

    insist_network(name)
    fixed = fixed_size(name)
    try:
        if fixed not in (None, size):
            net = timm.create_model(name, pretrained=False, num_classes=0, in_chans=channels, img_size=size)
        else:
            net = timm.create_model(name, pretrained=False, num_classes=0, in_chans=channels)
    except Exception as error:  # whatever a stranger's constructor makes of a size
        own = f"; it is made for {fixed} px" if fixed else ""
        raise UserError(f"{name} cannot be built for {channels} channels and {size} px: {error}{own}") from error
    if small_stem and not isinstance(net, ResNet):
        raise UserError(
            f"small_stem=True is for the ResNets of timm; {name} is a {type(net).__name__}, so leave it out"
        )
    notes = []
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


def is_resnet(net: nn.Module) -> bool:
    """Whether a network has the parts of a ResNet of timm."""
    return [name for name, _ in net.named_children()] == RESNET_PARTS


def parts(net: Any) -> tuple[list[list[nn.Module]], list[int], list[nn.Module]]:
    """Of a ResNet: the layers of each of its four stages, with the stem in the first; the channels of their maps; and
    the layers behind them."""
    layers = list(net.children())
    blocks = [layers[:5], *([layer] for layer in layers[5:8])]
    return blocks, [net.feature_info[i]["num_chs"] for i in range(1, 5)], layers[8:]


def converted(net: nn.Module, entries: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of another library for a network of timm, by its names and in its shapes.

    A ResNet of torchvision in a Sequential, as lightly keeps it, has numbers for names; all else is left to timm's own
    filter for the network, which also fits the grid of position embeddings. What cannot be converted stays as it is.
    """
    if is_resnet(net) and all(key.partition(".")[0].isdecimal() for key in entries):
        named = {key: key.partition(".") for key in entries}
        entries = {f"{RESNET_PARTS[int(n)]}.{rest}": entries[key] for key, (n, _, rest) in named.items()}
    own = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
    return entries if own is None else own(entries, net)


def layers(net: Any) -> list[list[nn.Parameter]]:
    """The parameters of a network by depth, from the input on, as timm groups them."""
    from timm.models import group_parameters

    by_name, groups = dict(net.named_parameters()), group_parameters(net, net.group_matcher(coarse=False))
    return [[by_name[name] for name in groups[i]] for i in sorted(groups)]


def pretrained(name: str) -> tuple[int, tuple[float, ...], tuple[float, ...]] | None:
    """The side, mean and deviation with which timm's own weights of a network want images; None where it has none."""
    import timm

    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return None if config is None else (config.input_size[-1], tuple(config.mean), tuple(config.std))


def maps(net: Any, x: Tensor, count: int = 4) -> list[Tensor]:
    """What a network gives at so many depths, evenly spaced up to the last: each N x C x H x W."""
    given = _intermediates(net, x, intermediates_only=True)
    at = torch.linspace(0, len(given), min(count, len(given)) + 1)[1:].ceil().long() - 1
    return [given[i] for i in at.tolist()]


def map_dim(net: Any) -> int:
    """The channels of the last of them."""
    return net.feature_info[-1]["num_chs"]


def with_map(net: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """What a network makes of images, N x dim, and the last of its maps, of one pass."""
    features, (last,) = _intermediates(net, x, indices=1)
    return net.forward_head(features), last


def _intermediates(net: Any, x: Tensor, **how: Any) -> Any:
    try:
        return net.forward_intermediates(x, norm=True, output_fmt="NCHW", **how)
    except AssertionError:  # those of Hiera are behind no norm, as it says before it computes anything
        return net.forward_intermediates(x, output_fmt="NCHW", **how)


def looked_at(net: Any, name: str) -> nn.Module:
    """The last layer whose places all count for what a network gives: of a transformer the norm in front of its last
    attention, as behind that the class token alone may be looked at; else its last stage.

    Raises ValueError where timm does not say which that is.
    """
    blocks = getattr(net, "blocks", None)
    if isinstance(blocks, nn.Sequential) and len(blocks) and isinstance(getattr(blocks[-1], "norm1", None), nn.Module):
        return blocks[-1].get_submodule("norm1")
    stages = getattr(net, "feature_info", None)
    try:
        return net.get_submodule(stages[-1]["module"])  # pyright: ignore[reportOptionalSubscript]
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        raise UserError(f"{name} does not say which of its layers gives the last maps") from error


def source(name: str, net: Any, *, channels: int, size: int, small_stem: bool) -> tuple[list[str], bool]:
    """The lines of Python that build it as `net` from torch and timm alone, and whether it is timm's unchanged."""
    img_size = f", img_size={size}" if fixed_size(name) not in (None, size) else ""
    lines = [f'net = timm.create_model("{name}", num_classes=0, in_chans={channels}{img_size})']
    if small_stem:
        if isinstance(net.conv1, nn.Sequential):
            lines.append("net.conv1[0].stride = (1, 1)")
        else:
            lines.append(f"net.conv1 = torch.nn.Conv2d({channels}, {net.conv1.out_channels}, 3, padding=1, bias=False)")
        lines.append("net.maxpool = torch.nn.Identity()")
    return lines, len(lines) == 1 and not img_size


def fixed_size(name: str) -> int | None:
    """The side in pixels that a network is built for; None where it takes any."""
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
