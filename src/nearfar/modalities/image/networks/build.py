"""From the name of an encoder to its network, and from a network to the lines of Python that build it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nearfar.errors import UserError
from nearfar.modalities import timm_nets
from nearfar.modalities.image.networks import biggan, conv4
from nearfar.modalities.image.networks.streams import Streams, channel_mixes
from nearfar.modalities.image.settings import biggan_width, insist_encoder


class Built(NamedTuple):
    """A network, whether it has the small stem, and sentences for the user."""

    net: nn.Module
    small_stem: bool
    notes: list[str]


def build(name: str, *, channels: int, size: int, small_stem: bool | None, std: Sequence[float]) -> Built:
    """The network called `name`, or several side by side ("ycbcr:NAME", "0,1+2:NAME"), with random weights.

    std: what the images are divided by before the network sees them, C numbers.  small_stem: None means where it fits.
    Raises ValueError for what cannot be built.
    """
    selection, colon, inner = name.rpartition(":")
    if not colon:
        insist_encoder(name)
        wide = biggan_width(name)
        if name != "conv4" and not wide:
            return Built(*timm_nets.timm_net(name, channels=channels, size=size, small_stem=small_stem))
        if small_stem:
            raise UserError(f"small_stem=True is for the ResNets of timm; {name} has no stem, so leave it out")
        return Built(biggan.trunk(channels, size, wide) if wide else conv4.conv4(channels), False, [])
    mixes = channel_mixes(selection, channels, std)
    streams = [build(inner, channels=len(mix), size=size, small_stem=small_stem, std=std) for mix in mixes]
    dims = [width(one.net, inner, channels=len(mix), size=size) for one, mix in zip(streams, mixes, strict=True)]
    with torch.no_grad():
        net = Streams([one.net for one in streams], mixes, dims)
    return Built(net, streams[0].small_stem, streams[0].notes)


def width(net: nn.Module, name: str, *, channels: int, size: int) -> int:
    """How many numbers the network makes of an image. Raises ValueError where it takes none of this size, and where it
    gives no vector."""
    # Asked of the network: timm's num_features is not the width of the output for every family (MobileNetV3).
    net.eval()
    try:
        with torch.no_grad():
            out = net(torch.zeros(1, channels, size, size))
    except Exception as error:  # whatever a stranger's network makes of a size
        raise UserError(f"{name} cannot take images of {size} x {size} px ({error}): choose another size") from error
    finally:
        net.train()
    if not isinstance(out, Tensor) or out.dim() != 2:
        shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise UserError(f"{name} gives {shape} for one image, wanted one vector; choose another network")
    return out.shape[1]


def source(net: nn.Module, name: str, *, channels: int, size: int, small_stem: bool) -> tuple[list[str], bool]:
    """The lines of Python that build `net` from torch and timm alone, and whether it is a network of timm unchanged."""
    if name == "conv4":
        return conv4.source(channels), False
    if biggan_width(name) and isinstance(net, nn.Sequential):
        return biggan.source(net), False
    if not isinstance(net, Streams):
        return timm_nets.source(name, net, channels=channels, size=size, small_stem=small_stem)
    lines = ["streams = []"]
    for stream in net.children():
        mix, inner = stream.children()
        seen = mix.get_parameter("weight").shape[0]
        lines += source(inner, name.rpartition(":")[2], channels=seen, size=size, small_stem=small_stem)[0]
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
