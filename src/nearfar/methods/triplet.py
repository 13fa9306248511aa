from __future__ import annotations

import math
from functools import partial
from typing import Literal

from nearfar.batch import Batch
from nearfar.losses.metric import triplet
from nearfar.method import Encoder, Method, Step
from nearfar.nn.heads import supcon_head
from nearfar.ranges import PositiveFloat, PositiveInt


class Triplet(Method):
    """Makes each view closer to views of its class than to views of other classes, by a margin.

    Most triplets of anchor, positive and negative soon satisfy the margin m and teach nothing, so they are mined in the
    batch of all processes. With unit rows and d = |z_i - z_j|,

        L = mean over triplets (a, p, n) of max(0, d_ap - d_an + m)

    Use it when distances are used as they are, for retrieval and verification. It costs what SimCLR costs. A sample
    without a label has its own views as positives.
    Note: The hardest triplets often collapse all samples to one point, where the loss is the margin; an alarm reports
    this. So the default is FaceNet's "semi_hard", here with all such triplets, where FaceNet takes one for each pair.

    Args:
        dim: Width of the embedding.
        margin: The margin m; 0.2 in FaceNet.
        mining: Triplets used: "semi_hard" (d_ap < d_an < d_ap + m), "hard" (d_an <= d_ap), "all", or "batch_hard" (each
            anchor's farthest positive and nearest negative, of Hermans).
        soft: Use log(1 + exp(d_ap - d_an)) instead of the hinge, as Hermans prefers.
        squared: Use squared distances, as FaceNet does.
        active: Average only over triplets that violate the margin.

    Schroff et al. 2015, "FaceNet: A Unified Embedding for Face Recognition and Clustering", arXiv 1503.03832; Hermans
    et al. 2017, "In Defense of the Triplet Loss for Person Re-Identification", arXiv 1703.07737.
    """

    title = "Triplet loss: FaceNet (Schroff et al. 2015)"
    family = "supervised"
    needs_labels = True
    sampler = "pk"

    def __init__(
        self,
        encoder: Encoder,
        *,
        dim: PositiveInt = 128,
        margin: PositiveFloat = 0.2,
        mining: Literal["semi_hard", "batch_hard", "hard", "all"] = "semi_hard",
        soft: bool = False,
        squared: bool = False,
        active: bool = False,
    ) -> None:
        super().__init__(encoder)
        self.projector = supcon_head(encoder.dim, out=dim)
        self.margin = math.log(2) if soft else margin
        self.loss = partial(triplet, margin=margin, mining=mining, soft=soft, squared=squared, active=active)

    def forward(self, batch: Batch) -> Step:
        return Step(self.loss(self.project_all(batch.views), batch.label, group=batch.group))
