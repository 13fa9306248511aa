from __future__ import annotations

from typing import Literal

from nearfar.batch import Batch
from nearfar.losses.distance import align, uniform
from nearfar.method import Encoder, Method, Step
from nearfar.nn.heads import moco_v1_head, moco_v2_head


class AlignUniform(Method):
    """The two views of a sample are drawn to one point, and all samples are spread evenly over the sphere.

    These are the two things that a contrastive loss asks for once negatives are many; here they are asked for plainly,
    each with a weight, and without a positive among the negatives.

        loss = align mean_i |x_i - y_i|^alpha + uniform (U(x) + U(y)) / 2
        U(x) = log mean_{i < j} exp(-t |x_i - x_j|^2)

    Use it when pull and push are to be weighed one against the other, which a temperature does not allow. It costs half
    of SimCLR's pairs, as the views are spread apart from each other. The paper's projector is the last layer of its
    AlexNet, one linear layer, which `head` follows. Its form with MoCo's queue, of which the weights could not be
    verified, is not here.

    dim: width of the embedding.  align, uniform: weights of the two parts.  alpha: power of the distance.  t: how near
    two samples must be to push each other; larger, nearer.  head: "linear" (the paper's) or "mlp".

    Wang and Isola 2020, "Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere", arXiv 2005.10242.
    """

    family = "instance"

    def __init__(
        self,
        encoder: Encoder,
        *,
        dim: int = 128,
        align: float = 1.0,
        uniform: float = 1.0,
        alpha: float = 2.0,
        t: float = 2.0,
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
