from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.distributed import gather
from nearfar.losses.classification import mixed_cross_entropy
from nearfar.losses.prediction import solved
from nearfar.method import Encoder, Method, Step
from nearfar.ops.mixing import cutmix, mixup
from nearfar.ranges import PositiveFloat, PositiveInt, UnitInterval


class DIET(Method):
    """Tells each sample from all others by a linear classifier that has a class for every sample.

    No projector, no second view, no slow copy: with n samples and a weight W_i for each,

        loss_i = (1 - smoothing) (far_i - W_i . h_i) + smoothing mean_j (far_i - W_j . h_i)
        far_i = log sum_j exp(W_j . h_i)

    Use it on up to some 100,000 samples, and with given weights (`--weights FILE --recipe continue`), where a start is
    to be led to new data without its own projector. It costs half of SimCLR with one view (`--view-count 1`), but W has
    a row for every sample, and a sample's own row learns once an epoch: from random weights it takes many epochs.
    Note: All views of a sample have its class, and samples of one group have one each. DIET-CP (arXiv 2509.06990), as
    its released code has it: `--smoothing 0.3 --mix both`, warm-up with the encoder frozen.

    Args:
        smoothing: Share of the target that is spread over all samples.
        mix: Whether views are mixed and keep both classes by their shares: "none", "mixup", "cutmix", or "both" of
            these in turn, by chance.
        mixed: Share of the steps in which they are.
        alpha: Parameter of the Beta distribution of the shares; smaller mixes less.

    Ibrahim et al. 2024, "Occam's Razor for Self Supervised Learning: What is Sufficient to Learn Good
    Representations?", arXiv 2406.10743; first as "No Free Lunch in Self Supervised Representation Learning" with
    Balestriero 2023, "Unsupervised Learning on a DIET", arXiv 2302.10260.
    """

    title = "DIET: Occam's Razor for Self Supervised Learning (Ibrahim et al. 2024)"
    family = "pretext tasks"

    def __init__(
        self,
        encoder: Encoder,
        *,
        samples: PositiveInt,
        smoothing: UnitInterval = 0.8,
        mix: Literal["none", "mixup", "cutmix", "both"] = "none",
        mixed: UnitInterval = 0.8,
        alpha: PositiveFloat = 1.0,
    ) -> None:
        super().__init__(encoder)
        self.classifier = nn.Linear(encoder.dim, samples, bias=False)
        self.changes = "" if mix == "none" else "mixed" if mix == "mixup" else "images"
        self.mixes = {"none": [], "mixup": [mixup], "cutmix": [cutmix], "both": [mixup, cutmix]}[mix]
        self.smoothing, self.mixed, self.alpha = smoothing, mixed, alpha

    def mixtures(self, batch: Batch) -> tuple[list[Any], Tensor, Tensor]:
        """The views, mixed where it is their turn; for each row the other sample's index, and the own share: VN."""
        draw, index = self.clock.generator(1), batch.index
        step, which = torch.rand(2, generator=draw).tolist()
        if not self.mixes or step >= self.mixed:
            own = index.repeat(len(batch.views))
            return batch.views, own, torch.ones(len(own), device=own.device)
        mix = self.mixes[int(which * len(self.mixes))]
        made = [mix(view, alpha=self.alpha, generator=draw) for view in batch.views]
        whole = gather(index)
        other, lam = torch.cat([whole[one.partner] for one in made]), torch.cat([one.lam for one in made])
        return [one.x for one in made], other, lam

    def forward(self, batch: Batch) -> Step:
        views, other, lam = self.mixtures(batch)
        rows = self.embed_all(views)
        if views is not batch.views and self.representations is not None:  # mixed with others, two views are not alike
            self.representations[:] = [rows[0].detach()]
        logits = self.classifier(torch.cat(rows))  # VN x samples
        own = batch.index.repeat(len(views))
        loss = mixed_cross_entropy(logits, own, other, lam, smoothing=self.smoothing)
        return Step(loss, {"right": solved(logits, own)})

    def chance(self, batch: Batch) -> Tensor:
        return self.classifier.weight.new_tensor(math.log(self.classifier.out_features))
