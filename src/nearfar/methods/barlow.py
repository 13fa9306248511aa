from __future__ import annotations

from typing import Any

from torch import Tensor

from nearfar.batch import Batch
from nearfar.losses.redundancy import barlow
from nearfar.method import Encoder, Method, Step
from nearfar.nn.heads import barlow_head


class BarlowTwins(Method):
    """The features of two views are made to agree each with itself and with no other: correlation becomes the identity.

    No negatives, no predictor, no second network: a feature that said the same for every sample has no correlation.

    dim: width of the embedding; the method wants it large.  lam: weight of the off-diagonal (0.005 in the paper, 0.0051
    in the released code).

    Zbontar et al. 2021, "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", arXiv 2103.03230.
    """

    family = "no negatives"

    def __init__(self, encoder: Encoder, *, dim: int = 8192, lam: float = 0.005) -> None:
        super().__init__(encoder)
        self.projector = barlow_head(encoder.dim, out=dim)
        self.lam = lam

    def project(self, view: Any) -> Tensor:
        return self.projector(self.embed(view))  # N x dim

    def forward(self, batch: Batch) -> Step:
        z1, z2 = self.each(self.project, batch.views)
        return Step(barlow(z1, z2, lam=self.lam))

    def chance(self, batch: int) -> float:
        return float(self.projector.dim)
