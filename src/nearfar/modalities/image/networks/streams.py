"""Networks side by side, each of which sees some channels of the image, or a mixture of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nearfar.errors import UserError

YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
"""Lightness, and how blue and how red (ITU-R BT.601), of red, green and blue."""


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


def channel_mixes(selection: str, channels: int, std: Sequence[float]) -> list[Tensor]:
    """What each stream sees: c x C, of unit length a row, for images that were divided by `std`.

    selection: "ycbcr", or the numbers of the channels of each stream, such as "0,1+2".
    Raises ValueError where it is neither, and for ycbcr of images that are not of three channels.
    """
    if selection == "ycbcr":
        if channels != 3:
            raise UserError(
                f"ycbcr is for color images, and these have {channels} channel(s): name the channels of each "
                "network instead, such as 0+0:conv4 for two that see the same one"
            )
        rows = torch.tensor(YCBCR) * torch.tensor(std)  # undoes the division
        rows = rows / rows.norm(dim=1, keepdim=True)
        return [rows[:1], rows[1:]]
    try:
        numbers = [[int(word) for word in part.split(",")] for part in selection.split("+")]
    except ValueError:
        numbers = []
    if len(numbers) < 2 or not all(0 <= number < channels for part in numbers for number in part):
        raise UserError(
            f'"{selection}:" does not say what each of several networks sees: wanted ycbcr, or channels from 0 to '
            f"{channels - 1} for two networks or more, such as 0,1+2:conv4"
        )
    return [torch.eye(channels)[part] for part in numbers]
