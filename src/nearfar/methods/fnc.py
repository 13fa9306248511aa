from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from nearfar.batch import Batch
from nearfar.losses.false_negatives import detected_columns, detection, find_alike, nt_xent_found
from nearfar.method import Encoder, Method, Step, equal_rows, frozen_statistics
from nearfar.nn.heads import mlp


class FNC(Method):
    """Detects likely false negatives in the batch by similarity, and makes them positives or leaves them out.

    The rows most similar to a sample's views are its false negatives F_i:

        attract:    -mean over own views and F_i of s_ij + log sum over all others of exp(s_ij)
        eliminate:  -s_ip + log(exp(s_ip) + sum_{j not in F_i} exp(s_ij))

    Use it when a batch holds many samples of each class. It costs SimCLR's step, and a pass for each further view.
    Note: With labels, the log reports `precision` and `recall` of F_i. The paper's optional memory is left out.

    Args:
        dim: Width of the embedding.
        temperature: Divides the similarities; 0.1 in the paper.
        treatment: "attract" (the only one in the released code) or "eliminate"; the paper names no default.
        top: Largest number of false negatives of a sample.
        threshold: Least cosine similarity of a false negative.
        score: Similarity to a sample: the "max" or the "mean" over its views.
        support_learns: Use views beyond the second, which support detection, as anchors too, as in the released code.

    Huynh et al. 2020, "Boosting Contrastive Self-Supervised Learning with False Negative Cancellation",
    arXiv 2011.11765.
    """

    title = "FNC: False Negative Cancellation (Huynh et al. 2020)"
    family = "negative weighting and selection"

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
        false_negatives = find_alike(  # N x top
            z, [*z, *support], top=self.top, threshold=self.threshold, score=self.score
        )
        loss = nt_xent_found(z, false_negatives, temperature=self.temperature, attract=self.attract, group=batch.group)
        log = detection(detected_columns(false_negatives, batch.label, learning)) if self.labeled else {}
        return Step(loss, log)

    def chance(self, batch: Batch) -> Tensor | None:
        if batch.group is not None:
            return None  # of equal rows any are found, of the group or not
        z = [equal_rows(batch)] * (len(batch.views) if self.support_learns else 2)
        false_negatives = find_alike(z, z, top=self.top, threshold=self.threshold, score=self.score)
        return nt_xent_found(z, false_negatives, temperature=self.temperature, attract=self.attract, group=batch.group)
