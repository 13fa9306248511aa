from __future__ import annotations

from functools import partial

from nearfar.batch import Batch
from nearfar.losses.metric import pairs
from nearfar.method import Encoder, Method, Step
from nearfar.nn.heads import supcon_head
from nearfar.ranges import NonNegativeFloat, PositiveFloat, PositiveInt


class Margin(Method):
    """Pulls pairs of one class together and pushes pairs of different classes apart, up to a margin.

    This is the first contrastive loss: each pair is compared with a fixed distance. With unit rows, d = |z_i - z_j| and
    m the margin,

        L = mean over pairs of one class of d^2 + mean over other pairs of max(0, m - d)^2

    Use it when one threshold on the distance is to separate same from different, and as the plainest baseline. It costs
    what SimCLR costs. A sample without a label has its own views as positives.
    Note: Both kinds of pairs weigh the same, however many there are; the paper's factors 1/2 are left out. The paper
    has no default margin: 1 was chosen here (unit rows at right angles have distance 1.41).

    Args:
        dim: Width of the embedding.
        margin: Distance beyond which pairs of different classes are not pushed.
        positive_margin: Distance within which pairs of one class are not pulled.
        linear: Use distances instead of their squares.
        active: Average only over pairs that violate their margin.

    Hadsell et al. 2006, "Dimensionality Reduction by Learning an Invariant Mapping", CVPR; as a baseline in Khosla et
    al. 2020, arXiv 2004.11362.
    """

    title = "Contrastive loss with a margin (Hadsell et al. 2006)"
    family = "supervised"
    needs_labels = True
    sampler = "pk"

    def __init__(
        self,
        encoder: Encoder,
        *,
        dim: PositiveInt = 128,
        margin: PositiveFloat = 1.0,
        positive_margin: NonNegativeFloat = 0.0,
        linear: bool = False,
        active: bool = False,
    ) -> None:
        super().__init__(encoder)
        self.projector = supcon_head(encoder.dim, out=dim)
        self.margin = margin if linear else margin**2
        self.loss = partial(pairs, margin=margin, positive_margin=positive_margin, linear=linear, active=active)

    def forward(self, batch: Batch) -> Step:
        return Step(self.loss(self.project_all(batch.views), batch.label, group=batch.group))
