from __future__ import annotations

import math
from typing import Literal

import torch

from nearfar.batch import Batch
from nearfar.losses.false_negatives import detected_columns, detection, find_alike, nt_xent_found
from nearfar.method import Encoder, Method, Step, frozen_statistics
from nearfar.nn.heads import mlp


class FNC(Method):
    """Each view finds its other view among those of the batch, but not among the samples that look most like it.

    SimCLR pushes apart images of one thing as well. Here the samples whose embeddings are most like any view of a
    sample are taken for such false negatives F_i, and pulled as further positives, or left out of the negatives:

        attract:    -mean over own views and F_i of s_ij + log sum over all others of exp(s_ij)
        eliminate:  -s_ip + log(exp(s_ip) + sum_{j not in F_i} exp(s_ij))

    Use it when the batch holds many samples of each class. It costs what SimCLR does; each view beyond the first two,
    which only help to find F_i, costs a forward pass. The views that two alone give serve to find as well.

    With labels, the log tells `precision`, the share of the false negatives found that are of the same class, and
    `recall`, the share of the negatives of the same class that are found. The memory of earlier embeddings, which the
    paper has as an option, is left out; which of the two treatments is the default it leaves open.

    dim: width of the embedding.  temperature: 0.1 in the paper.  treatment: of what is found: "attract", as the
    released code has it alone, or "eliminate".  top: most rows found for a sample.  threshold: least cosine of them.
    score: "max" over the views of a sample, or "mean".  support_learns: let the views beyond the first two be anchors
    and positives too, as in the released code.

    Huynh et al. 2020, "Boosting Contrastive Self-Supervised Learning with False Negative Cancellation",
    arXiv 2011.11765.
    """

    family = "negatives"

    def __init__(
        self,
        encoder: Encoder,
        *,
        classes: int,
        dim: int = 128,
        temperature: float = 0.1,
        treatment: Literal["attract", "eliminate"] = "attract",
        top: int = 10,
        threshold: float = 0.7,
        score: Literal["max", "mean"] = "max",
        support_learns: bool = False,
    ) -> None:
        super().__init__(encoder)
        widths = (encoder.dim, encoder.dim, encoder.dim, dim)
        self.projector = mlp(widths, norm=True, bias=False, last_bias=False, last_norm=True, last_offset=False)
        self.temperature, self.attract, self.labeled = temperature, treatment == "attract", classes > 0
        self.top, self.threshold, self.support_learns = top, threshold, support_learns
        self.score: Literal["max", "mean"] = score

    def forward(self, batch: Batch) -> Step:
        learning = len(batch.views) if self.support_learns else 2
        z, support = self.project_all(batch.views[:learning]), []
        if batch.views[learning:]:
            with torch.no_grad(), frozen_statistics(self):
                support = self.project_all(batch.views[learning:])
        found = find_alike(z, [*z, *support], top=self.top, threshold=self.threshold, score=self.score)  # N x top
        loss = nt_xent_found(z, found, temperature=self.temperature, attract=self.attract, group=batch.group)
        log = detection(detected_columns(found, batch.label, learning)) if self.labeled else {}
        return Step(loss, log)

    def chance(self, batch: int) -> float | None:
        return None if self.attract or self.support_learns else math.log(2 * batch - 1)
