"""What the parts of a grid in front of a place say of it."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from nearfar.precision import network


class CausalConvolutions(nn.Module):
    """The context of each place of a grid, from its row and those above: N x dim x G x G -> N x width x G x G.

    Masked convolutions as in PixelCNN, except that a whole row is visible, as rows below are predicted.
    """

    def __init__(self, dim: int, width: int, layers: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(dim, width, 1)
        self.layers = nn.ModuleList(nn.Conv2d(width, width, (2, 3)) for _ in range(layers))

    @network
    def forward(self, z: Tensor) -> Tensor:
        c = self.first(z)
        for layer in self.layers:
            c = c + layer(F.pad(c.relu(), (1, 1, 1, 0)))  # nothing from below
        return c
