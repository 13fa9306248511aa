"""Learnt prototypes on the unit sphere."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Prototypes(nn.Module):
    """`count` unit vectors of `dim` numbers; scores are cosines with unit rows (SwAV, arXiv 2006.09882).

    The gradient is that of the rows as they stand; `renormalise` puts them back on the sphere after a step.
    """

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(F.normalize(torch.randn(count, dim), dim=1))

    def forward(self, z: Tensor) -> Tensor:
        """Scores of each row against each prototype: N x dim -> N x count."""
        return F.linear(z, self.weight)

    @torch.no_grad()
    def renormalise(self) -> None:
        self.weight.copy_(F.normalize(self.weight, dim=1))
