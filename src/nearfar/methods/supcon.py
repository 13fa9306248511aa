from __future__ import annotations

import math
from typing import Literal

import torch

from nearfar.batch import Batch
from nearfar.distributed import normalise
from nearfar.heads import supcon_head
from nearfar.losses.supervised import share_with_positive, supcon, supcon_in
from nearfar.method import Encoder, Method, Step


class SupCon(Method):
    """Each view finds every view of its class, its own other view among them, in the batch.

    SimCLR with labels: samples of one class are positives. A sample without a label has its own views only, so labels
    for a part of the data are enough. A classifier is fitted afterwards, on the frozen encoder.

    dim: width of the embedding.  temperature: 0.1 in the paper.  mean: over the positives "outside" the logarithm
    (L_out, which the paper recommends) or "inside" it (L_in).  base_temperature: scale the loss by temperature over
    this, as the released code does with 0.07; the paper does not.

    Khosla et al. 2020, "Supervised Contrastive Learning", arXiv 2004.11362.
    """

    family = "labels"
    needs_labels = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        dim: int = 128,
        temperature: float = 0.1,
        mean: Literal["outside", "inside"] = "outside",
        base_temperature: float | None = None,
    ) -> None:
        super().__init__(encoder)
        self.projector = supcon_head(encoder.dim, out=dim)
        self.temperature, self.base_temperature = temperature, base_temperature
        self.loss = supcon if mean == "outside" else supcon_in

    def forward(self, batch: Batch) -> Step:
        views = len(batch.views)
        z = normalise(self.projector(self.embed(torch.cat(batch.views))))  # VN x dim
        loss = self.loss(
            list(z.chunk(views)),
            batch.label,
            temperature=self.temperature,
            base_temperature=self.base_temperature,
            group=batch.group,
        )
        return Step(loss, {"with_positive": share_with_positive(batch.label, views)})

    def chance(self, batch: int) -> float:
        scale = 1 if self.base_temperature is None else self.temperature / self.base_temperature
        return scale * math.log(2 * batch - 1)
