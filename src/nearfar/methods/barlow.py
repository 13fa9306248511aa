from __future__ import annotations

from typing import Any

from torch import Tensor

from nearfar.batch import Batch
from nearfar.losses.redundancy import barlow
from nearfar.method import Encoder, Method, Step
from nearfar.nn.heads import barlow_head
from nearfar.ranges import NonNegativeFloat, PositiveInt


class BarlowTwins(Method):
    """Drives the cross-correlation matrix of two views' embeddings toward the identity matrix.

    The diagonal makes each feature invariant to the views; the off-diagonal makes different features uncorrelated.
    There are no negatives, no predictor and no second network: a constant feature has no correlation, so it cannot win.

        loss = sum_a (1 - C_aa)^2 + lam sum_{a != b} C_ab^2,    C: correlation of features a of view 1 and b of view 2

    Use it when negatives are unwanted and the embedding can be wide. It costs little more than SimCLR.

    Args:
        dim: Width of the embedding; the method needs it large.
        lam: Weight of the off-diagonal terms; 0.005 in the paper, 0.0051 in the released code.

    Zbontar et al. 2021, "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", arXiv 2103.03230.
    """

    title = "Barlow Twins: Self-Supervised Learning via Redundancy Reduction (Zbontar et al. 2021)"
    family = "no negatives"
    fewest_views = most_views = 2

    def __init__(self, encoder: Encoder, *, dim: PositiveInt = 8192, lam: NonNegativeFloat = 0.005) -> None:
        super().__init__(encoder)
        self.projector = barlow_head(encoder.dim, out=dim)
        self.lam = lam

    def project(self, view: Any) -> Tensor:
        return self.projector(self.embed(view))  # N x dim

    def forward(self, batch: Batch) -> Step:
        z1, z2 = self.each(self.project, batch.views)
        return Step(barlow(z1, z2, lam=self.lam))

    def chance(self, batch: Batch) -> float:
        return float(self.projector.dim)
