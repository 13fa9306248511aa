from __future__ import annotations

import math
from functools import partial
from typing import Literal

from nearfar.batch import Batch
from nearfar.losses.metric import triplet
from nearfar.method import Encoder, Method, Step
from nearfar.nn.heads import supcon_head


class Triplet(Method):
    """Each view is to lie nearer to the views of its class than to those of other classes, by a margin.

    One positive against one negative, where SupCon weighs all at once. Most triplets are soon fulfilled and teach
    nothing, so they are mined in the batch of all processes. With unit rows, d = |z_i - z_j| and m the margin,

        L = mean over triplets (a, p, n) of max(0, d_ap - d_an + m)

    Use it when distances are to be used as they are, for retrieval and verification; it costs what SimCLR does. From
    the start, the hardest triplets often draw all samples to one row, where the loss is the margin: an alarm tells. So
    the default is FaceNet's "semi_hard"; it takes all such triplets, where FaceNet takes one for each pair. A sample
    without a label has its own views as positives. Rows are of unit length, as in FaceNet.

    dim: width of the embedding.  margin: 0.2 in FaceNet.  mining: triplets with d_ap < d_an < d_ap + m ("semi_hard"),
    those with d_an <= d_ap ("hard"), every one ("all"), or each anchor's farthest positive and nearest negative
    ("batch_hard", Hermans).  soft: log(1 + exp(d_ap - d_an)) in place of the hinge, as Hermans prefers.  squared:
    squares of distances, as FaceNet has.  active: the mean over triplets that are not yet fulfilled.

    Schroff et al. 2015, "FaceNet: A Unified Embedding for Face Recognition and Clustering", arXiv 1503.03832;
    Hermans et al. 2017, "In Defense of the Triplet Loss for Person Re-Identification", arXiv 1703.07737.
    """

    family = "labels"
    needs_labels = True
    sampler = "pk"

    def __init__(
        self,
        encoder: Encoder,
        *,
        dim: int = 128,
        margin: float = 0.2,
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
