from __future__ import annotations

from typing import Any

from torch import Tensor

from nearfar.batch import Batch
from nearfar.losses.distance import byol
from nearfar.method import Encoder, Method, Step
from nearfar.nn.heads import byol_head
from nearfar.nn.momentum import MomentumPair
from nearfar.optim.schedules import cosine_ramp
from nearfar.ranges import PositiveInt, UnitInterval


class BYOL(Method):
    """Predicts, from one view, the embedding that a momentum encoder gives the other view; there are no negatives.

        loss = sum over both directions of  2 - 2 cos(p, t),    p: prediction from one view, t: target of the other

    Collapse to one constant embedding is avoided by the predictor, which the momentum encoder lacks, by the momentum
    encoder itself, and by batch norm.

    Use it when negatives are unwanted, or batches are too small to hold enough of them. It costs about a third more
    than SimCLR: one more forward pass, and the weights twice.
    Note: The momentum encoder begins equal to the encoder, as in most ports; the released code begins it from another
    seed.

    Args:
        dim: Width of the embedding.
        hidden: Width of the hidden layers of projector and predictor.
        momentum: Momentum of the second encoder at the start; it rises to 1 along a cosine. The paper uses 0.996 for
            1000 epochs, 0.99 for 100 to 300, 0.97 for 40.

    Grill et al. 2020, "Bootstrap Your Own Latent", arXiv 2006.07733.
    """

    title = "BYOL: Bootstrap Your Own Latent (Grill et al. 2020)"
    family = "no negatives"
    fewest_views = most_views = 2

    def __init__(
        self, encoder: Encoder, *, dim: PositiveInt = 256, hidden: PositiveInt = 4096, momentum: UnitInterval = 0.996
    ) -> None:
        super().__init__(encoder)
        self.projector = byol_head(encoder.dim, hidden=hidden, out=dim)
        self.predictor = byol_head(dim, hidden=hidden, out=dim)
        self.slow, self.momentum = MomentumPair(self.encoder, self.projector), momentum

    def predict(self, view: Any) -> Tensor:
        return self.predictor(self.projector(self.embed(view)))  # N x dim

    def target(self, view: Any) -> Tensor:
        return self.slow(self, view)  # N x dim

    def forward(self, batch: Batch) -> Step:
        p1, p2 = self.each(self.predict, batch.views)
        z1, z2 = self.each(self.target, batch.views)
        return Step(byol(p1, z2) + byol(p2, z1))

    def after_step(self, step: Step) -> None:
        self.slow.follow(self, cosine_ramp(self.momentum, self.clock.progress))
