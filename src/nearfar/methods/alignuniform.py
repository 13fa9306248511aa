from __future__ import annotations

from typing import Literal

from nearfar.batch import Batch
from nearfar.losses.distance import align, uniform
from nearfar.method import Encoder, Method, Step
from nearfar.nn.heads import moco_v1_head, moco_v2_head
from nearfar.ranges import NonNegativeFloat, PositiveFloat, PositiveInt


class AlignUniform(Method):
    """Pulls the two views of a sample together and spreads all samples evenly over the unit sphere.

    With many negatives, a contrastive loss does just these two things. Here each is a term of its own, with a weight:

        loss = align mean_i |x_i - y_i|^alpha + uniform (U(x) + U(y)) / 2
        U(x) = log mean_{i < j} exp(-t |x_i - x_j|^2)

    Use it when pull and push are to be weighed against each other, which a temperature does not allow. It costs what
    SimCLR costs, with half the pairs: each view is spread by itself.
    Note: The paper's projector is the last linear layer of its AlexNet; `head` offers that or an MLP. The paper's form
    with MoCo's queue is left out, as its weights could not be verified.

    Args:
        dim: Width of the embedding.
        align: Weight of the alignment term (positives).
        uniform: Weight of the uniformity term (all pairs).
        alpha: Power of the distance between positives.
        t: Sharpness of the uniformity term; a larger value lets only close pairs repel each other.
        head: "linear" (the paper's projector) or "mlp".

    Wang and Isola 2020, "Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere", arXiv 2005.10242.
    """

    title = "Alignment and Uniformity on the Hypersphere (Wang and Isola 2020)"
    family = "in-batch negatives"
    fewest_views = most_views = 2

    def __init__(
        self,
        encoder: Encoder,
        *,
        dim: PositiveInt = 128,
        align: NonNegativeFloat = 1.0,
        uniform: NonNegativeFloat = 1.0,
        alpha: PositiveFloat = 2.0,
        t: PositiveFloat = 2.0,
        head: Literal["linear", "mlp"] = "linear",
    ) -> None:
        super().__init__(encoder)
        self.projector = (moco_v1_head if head == "linear" else moco_v2_head)(encoder.dim, out=dim)
        self.align, self.uniform, self.alpha, self.t = align, uniform, alpha, t

    def forward(self, batch: Batch) -> Step:
        x, y = self.project_all(batch.views)  # N x dim
        near = align(x, y, alpha=self.alpha)
        apart = (uniform(x, t=self.t, group=batch.group) + uniform(y, t=self.t, group=batch.group)) / 2
        log = {"align": near.detach(), "uniform": apart.detach()}
        return Step(self.align * near + self.uniform * apart, log)
