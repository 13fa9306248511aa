"""Networks of clips, and what makes one row of the rows or maps of frames. An export carries the text of most of them
(see `VideoEncoder.source`), which therefore rests on torch and torchvision alone."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from nearfar.method import Stage
from nearfar.modalities.image.encoder import ImageEncoder
from nearfar.modalities.video.settings import OverTime, Pooling
from nearfar.nn.apply import Apply


class Block(nn.Module):
    """A residual block of the slow-only network: N x C x T x H x W -> N x width x T x H' x W'.

    Two convolutions of 3 x 3, or a bottleneck of 1 x 1, 3 x 3 and 1 x 1; the first reaches over `time` frames.
    """

    def __init__(self, inside: int, width: int, *, time: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        out = 4 * width if bottleneck else width
        sizes = [(1, 1), (3, stride), (1, 1)] if bottleneck else [(3, stride), (3, 1)]
        widths, layers = [inside, *[width] * (len(sizes) - 1), out], []
        norms = [nn.BatchNorm3d(given) for given in widths[1:]]
        for number, (side, step) in enumerate(sizes):
            reach = time if number == 0 else 1
            made = conv(widths[number], widths[number + 1], (reach, side, side), (1, step, step))
            layers += [made, norms[number], nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])
        nn.init.zeros_(norms[-1].weight)  # each block begins as what is passed around it
        same = inside == out and stride == 1
        self.around = nn.Identity() if same else conv(inside, out, (1, 1, 1), (1, stride, stride))

    def forward(self, x: Tensor) -> Tensor:
        return (self.layers(x) + self.around(x)).relu()


def slow_only(layers: int, width: int, *, small_stem: bool) -> list[tuple[nn.Sequential, int]]:
    """The stages of the slow-only ResNet of CVRL (arXiv 2008.03800), each with the channels it gives.

    The stem reaches over 5 frames and takes every second; the blocks of the last two stages reach over 3.
    layers: 18 or 50.  small_stem: no strides in space before the second stage, for sides up to 64 px.
    """
    bottleneck = layers == 50
    counts = (3, 4, 6, 3) if bottleneck else (2, 2, 2, 2)
    stem = [
        conv(3, width, (5, 3, 3) if small_stem else (5, 7, 7), (2, 1, 1) if small_stem else (2, 2, 2)),
        nn.BatchNorm3d(width),
        nn.ReLU(),
    ]
    stages, inside = [], width
    for stage, count in enumerate(counts):
        inner, time, blocks = width * 2**stage, 3 if stage > 1 else 1, []
        for number in range(count):
            stride = 2 if number == 0 and stage > 0 else 1
            blocks.append(Block(inside, inner, time=time, stride=stride, bottleneck=bottleneck))
            inside = 4 * inner if bottleneck else inner
        stages.append((nn.Sequential(*blocks), inside))
    pool = [] if small_stem else [nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))]
    return [(nn.Sequential(*stem, *pool, stages[0][0]), stages[0][1]), *stages[1:]]


def torchvision_stages(name: Literal["r3d_18", "mc3_18", "r2plus1d_18"]) -> list[tuple[nn.Sequential, int]]:
    """The stages of a network of torchvision (Tran et al. 2018, arXiv 1711.11248), with random weights."""
    from torchvision.models import video

    net = getattr(video, name)(weights=None)
    widths = (64, 128, 256, 512)
    layers = [nn.Sequential(net.stem, net.layer1), net.layer2, net.layer3, net.layer4]
    return [(nn.Sequential(layer), width) for layer, width in zip(layers, widths, strict=True)]


class Pooled(nn.Module):
    """The mean of a map over all places: N x C x ... -> N x C."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).mean(2)


class Mean(nn.Module):
    """The mean of frames, which knows no order: N x T x D -> N x D."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


class SpatialSoftArgmax(nn.Module):
    """Where each channel of a map is largest, smoothly: N x C x H x W -> N x 2C, the mean place across, then down.

    Places are weighed by the softmax of a channel over them, and lie from -1 to 1 (Finn et al. 2016, arXiv 1509.06113).
    """

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        weight = x.flatten(2).softmax(2).unflatten(2, (height, width))
        across, down = (torch.linspace(-1, 1, n, device=x.device, dtype=x.dtype) for n in (width, height))
        return torch.cat([(weight.sum(2) * across).sum(2), (weight.sum(3) * down).sum(2)], 1)


class Attention(nn.Module):
    """A layer of a transformer over frames, whose places are learned, and their mean: N x T x D -> N x D."""

    def __init__(self, dim: int, frames: int) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(frames, dim).normal_(std=0.02))
        heads = next(n for n in (8, 4, 2, 1) if dim % n == 0)
        self.layer = nn.TransformerEncoderLayer(dim, heads, 2 * dim, dropout=0.0, batch_first=True, norm_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x + self.place[: x.shape[1]]).mean(1)


class Convolutions(nn.Module):
    """Two convolutions over time, each over 3 frames and added to what it takes, and the mean: N x T x D -> N x D."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv1d(dim, dim, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x.mT
        for conv in self.convs:
            x = x + conv(x).relu()
        return x.mean(2)


class FrameNet(nn.Module):
    """A network of images on each frame, and one row of all: N x T x C x H x W -> N x dim."""

    def __init__(self, frame: ImageEncoder, over: OverTime, pooling: Pooling, frames: int) -> None:
        super().__init__()
        self.frame = frame
        self.place = SpatialSoftArgmax() if pooling == "softargmax" else None
        width = frame.dim if self.place is None else 2 * frame.stages()[-2].dim
        self.over: nn.Module = Mean()
        if over == "attention":
            self.over = Attention(width, frames)
        if over == "conv":
            self.over = Convolutions(width)
        self.dim = width

    def forward(self, x: Tensor) -> Tensor:
        return self.over(self.rows(x.flatten(0, 1)).unflatten(0, x.shape[:2]))

    def rows(self, frames: Tensor) -> Tensor:
        return self.frame(frames) if self.place is None else self.place(self.frame.maps(frames)[-1])

    def stages(self) -> list[Stage]:
        """The maps of all frames, N x C x T x H x W; and what becomes of them."""
        *lower, top = self.frame.stages()

        def maps(x: Tensor) -> Tensor:
            made = x.flatten(0, 1)
            for stage in lower:
                made = stage(made)
            return made.unflatten(0, x.shape[:2]).transpose(1, 2)

        def row(x: Tensor) -> Tensor:
            made = x.transpose(1, 2)
            end = top if self.place is None else self.place
            return self.over(end(made.flatten(0, 1)).unflatten(0, made.shape[:2]))

        # The modules stand beside the functions that call them, so that who trains a stage finds its weights.
        return [_Of(maps, [*lower], lower[-1].dim), _Of(row, [top, self.over], self.dim)]


class _Of(Stage):
    """A stage that a function computes by some modules."""

    def __init__(self, function: object, modules: list[nn.Module], dim: int) -> None:
        super().__init__(Apply(function), dim=dim)  # pyright: ignore[reportArgumentType]
        self.held = nn.ModuleList(modules)


def conv(inside: int, out: int, size: tuple[int, int, int], stride: tuple[int, int, int]) -> nn.Conv3d:
    padding = (size[0] // 2, size[1] // 2, size[2] // 2)
    conv = nn.Conv3d(inside, out, size, stride, padding, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv
