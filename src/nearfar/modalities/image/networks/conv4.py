"""A small network for drawings and other small images."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

WIDTHS = (32, 64, 128, 128)
"""Channels of the maps that each of the four blocks gives."""


def conv4(channels: int) -> nn.Sequential:
    """Four blocks of 3x3 convolution, max-pool, batch norm and ReLU, then 2 x 2 cells: N x C x H x W -> N x 512.

    The small network of few-shot learning (arXiv 1606.04080), for sides from 16 pixels. Pooling comes before norm and
    ReLU, and the first blocks are narrow: on a CPU that trains more than twice as many images a second.
    """
    layers: list[nn.Module] = []
    for before, after in pairwise((channels, *WIDTHS)):
        layers.append(nn.Conv2d(before, after, 3, padding=1, bias=False))
        layers += [nn.MaxPool2d(2), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())


def parts(net: nn.Sequential) -> tuple[list[list[nn.Module]], list[int], list[nn.Module]]:
    """Of conv4: the layers of each block, the channels of its maps, and the layers behind the blocks."""
    layers, count = list(net), len(WIDTHS)
    return [layers[4 * i : 4 * i + 4] for i in range(count)], list(WIDTHS), layers[4 * count :]


def source(channels: int) -> list[str]:
    """The lines of Python that build it as `net` from torch alone."""
    return [
        "def block(a, b):",
        "    conv = torch.nn.Conv2d(a, b, 3, padding=1, bias=False)",
        "    return conv, torch.nn.MaxPool2d(2), torch.nn.BatchNorm2d(b), torch.nn.ReLU()",
        "",
        "",
        "blocks = " + ", ".join(f"*block({a}, {b})" for a, b in pairwise((channels, *WIDTHS))),
        "net = torch.nn.Sequential(*blocks, torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())",
    ]
