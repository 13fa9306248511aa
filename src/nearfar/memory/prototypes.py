"""Prototypes on the unit sphere, learned or led."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nearfar.batch import MISSING
from nearfar.distributed import gather
from nearfar.memory.turns import in_turns
from nearfar.ranges import PositiveInt, checked


class Prototypes(nn.Module):
    """`count` unit vectors of `dim` numbers; scores are cosines with unit rows (SwAV, arXiv 2006.09882).

    The gradient is that of the rows as they stand; `renormalize` puts them back on the sphere after a step.
    """

    @checked
    def __init__(self, count: PositiveInt, dim: PositiveInt) -> None:
        super().__init__()
        self.weight = nn.Parameter(F.normalize(torch.randn(count, dim), dim=1))

    def forward(self, z: Tensor) -> Tensor:
        """Scores of each row against each prototype: N x dim -> N x count."""
        return F.linear(z, self.weight)

    @torch.no_grad()
    def renormalize(self) -> None:
        self.weight.copy_(F.normalize(self.weight, dim=1))


class MovingPrototypes(Prototypes):
    """Prototypes that no gradient moves: each follows the rows that are said to be its own (arXiv 2208.02764)."""

    def __init__(self, count: int, dim: int) -> None:
        super().__init__(count, dim)
        self.weight.requires_grad_(False)

    @torch.no_grad()
    def follow(self, z: Tensor, own: Tensor, *, keep: float) -> None:
        """weight_c <- normalize(keep * weight_c + (1 - keep) * z_i), for one row after the other, of every rank.

        z: N x dim, unit rows.  own: N, int64, the prototype c of each row, or MISSING for those that move none.
        """
        z, own = gather(z.detach()).to(self.weight.dtype), gather(own)
        z, own = z[own != MISSING], own[own != MISSING]
        for now in in_turns(own):  # prototypes do not wait for each other
            c = own[now]
            self.weight[c] = F.normalize(keep * self.weight[c] + (1 - keep) * z[now], dim=1)
