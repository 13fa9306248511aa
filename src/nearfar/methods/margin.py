from __future__ import annotations

from functools import partial

from nearfar.batch import Batch
from nearfar.losses.metric import pairs
from nearfar.method import Encoder, Method, Step
from nearfar.nn.heads import supcon_head


class Margin(Method):
    """Each pair of views is drawn together if of one class, and pushed apart up to a margin if not.

    The first contrastive loss: every pair is judged by itself, against a fixed distance. With unit rows,
    d = |z_i - z_j| and m the margin,

        L = mean over pairs of one class of d^2 + mean over other pairs of max(0, m - d)^2

    Use it when one threshold on the distance is to tell same from other, and as the plainest baseline; it costs what
    SimCLR does. Both kinds of pairs weigh the same, however many there are; the paper's halves are left out. A sample
    without a label has its own views as positives. The margin has no default in the paper: 1 on the sphere, where rows
    at right angles have 1.41, is decided here.

    dim: width of the embedding.  margin: beyond which other classes are left alone.  positive_margin: within which
    pairs of one class are.  linear: distances in place of their squares.  active: means over the pairs that are not yet
    where they should be.

    Hadsell et al. 2006, "Dimensionality Reduction by Learning an Invariant Mapping", CVPR; as a baseline in Khosla et
    al. 2020, arXiv 2004.11362.
    """

    family = "labels"
    needs_labels = True
    sampler = "pk"

    def __init__(
        self,
        encoder: Encoder,
        *,
        dim: int = 128,
        margin: float = 1.0,
        positive_margin: float = 0.0,
        linear: bool = False,
        active: bool = False,
    ) -> None:
        super().__init__(encoder)
        self.projector = supcon_head(encoder.dim, out=dim)
        self.margin = margin if linear else margin**2
        self.loss = partial(pairs, margin=margin, positive_margin=positive_margin, linear=linear, active=active)

    def forward(self, batch: Batch) -> Step:
        return Step(self.loss(self.project_all(batch.views), batch.label, group=batch.group))
