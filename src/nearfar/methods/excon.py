from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.distributed import normalize
from nearfar.errors import UserError
from nearfar.losses.classification import cross_entropy
from nearfar.losses.supervised import supcon
from nearfar.method import Encoder, Step, equal_rows
from nearfar.methods.supcon import SupCon
from nearfar.ops.explanation import essence, gradcam, saliency
from nearfar.ranges import PositiveFloat, PositiveInt, UnitInterval


class ExCon(SupCon):
    """Trains SupCon with views that show only the image regions by which a classifier recognizes the class.

    With e an explanation map for the label, scaled to [0, 1], and m the mean color (the encoder's, else 0.5),

        x' = x where e > threshold, else m      views: v_1, and x' if the classifier still predicts the label, else v_2

    Use it when a random crop may miss the object. It adds two passes in eval mode and one backward to SimCLR's step.
    Note: The classifier is linear and learns in the same step from the features of v_1, to which it passes no gradient;
    the paper trains it between epochs. Maps are made in eval mode, where the released code uses batch statistics, and
    keep their sign. A sample without a label is not explained.

    Args:
        explain: Source of the map: "gradcam", where the encoder has stages, or "saliency", the gradient at the pixels.
        stage: Stage of the encoder that gradcam uses; in the released code 2 for 32 px, 4 for 64 px.
        threshold: Value of the map above which pixels stay.
        background: Use of a masked view that is not recognized: "none", or (ExConB) an additional row that is one of
            the "negatives" of all, or of a "class" of its own; both pass all masked views through the encoder.
        after: Share of training with SupCon alone; a quarter in the authors' command for CIFAR-100.
        dim: Width of the embedding.
        temperature: Divides the similarities.
        base_temperature: Scale the loss by temperature over this, as in SupCon.

    Zhang et al. 2021, "ExCon: Explanation-driven Supervised Contrastive Learning for Image Classification",
    arXiv 2111.14271.
    """

    title = "ExCon: Explanation-driven Supervised Contrastive Learning (Zhang et al. 2021)"
    needs_pixels = True
    classifies = True
    fewest_views = most_views = 3

    def __init__(
        self,
        encoder: Encoder,
        *,
        classes: int,
        explain: Literal["gradcam", "saliency"] = "gradcam",
        stage: PositiveInt = 2,
        threshold: UnitInterval = 0.5,
        background: Literal["none", "negatives", "class"] = "none",
        after: UnitInterval = 0.25,
        dim: PositiveInt = 128,
        temperature: PositiveFloat = 0.1,
        base_temperature: PositiveFloat | None = None,
    ) -> None:
        super().__init__(encoder, dim=dim, temperature=temperature, base_temperature=base_temperature)
        if explain == "gradcam" and stage > (maps := len(encoder.stages()) - 1):
            raise UserError(f"stage={stage} has no map to look at: those from 1 to {maps} of this encoder have one")
        self.classifier = nn.Linear(encoder.dim, classes)
        self.explain = partial(gradcam, stage=stage) if explain == "gradcam" else saliency
        self.threshold, self.background, self.after = threshold, background, after

    def forward(self, batch: Batch) -> Step:
        if len(batch.views) != 3:
            raise UserError(f"excon wants an image and two views of it, not {len(batch.views)} views: --views excon")
        x, v1, v2 = batch.views
        views, right = [v1, v2], torch.zeros_like(batch.label, dtype=torch.bool)
        if self.clock.progress >= self.after:
            how = self.explain, self.encoder, self.classifier
            masked, right = essence(*how, x, batch.label, threshold=self.threshold, at_once=self.micro_batch)
            views = [v1, torch.where(right[:, None, None, None], masked, v2)]
            views += [masked] if self.background != "none" else []
        h = self.embed_all(views)  # 2 or 3 of N x encoder.dim
        z = normalize(self.projector(torch.cat(h))).split(len(x))  # N x dim each
        entropy = cross_entropy(self.classifier(h[0].detach()), batch.label)
        loss = self.contrast(z, batch, ~right & (batch.label >= 0)) + entropy
        return Step(loss, {"explained": right.float().mean(), "entropy": entropy.detach()})

    def contrast(self, z: Sequence[Tensor], batch: Batch, wrong: Tensor) -> Tensor:
        loss = partial(supcon, temperature=self.temperature, base_temperature=self.base_temperature)
        if len(z) == 2:
            return loss(list(z), batch.label, group=batch.group)
        # Each sample brings a background, which the loss leaves out where there is none: ranks exchange equal numbers.
        label = torch.cat([batch.label, torch.full_like(batch.label, self.classifier.out_features)])
        sample = torch.ones_like(wrong)
        anchors = torch.cat([sample, ~sample]) if self.background == "negatives" else None
        group = None if batch.group is None else batch.group.repeat(2)
        both = [torch.cat([view, z[2]]) for view in z[:2]]  # 2N x dim
        return loss(both, label, group=group, among=torch.cat([sample, wrong]), anchors=anchors)

    def chance(self, batch: Batch) -> Tensor | None:
        if self.background != "none":
            return None  # it depends on which masked views are recognized
        z, logits = equal_rows(batch), self.classifier.weight.new_zeros(len(batch), self.classifier.out_features)
        return self.contrast([z, z], batch, batch.label < 0) + cross_entropy(logits, batch.label)
