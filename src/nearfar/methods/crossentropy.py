from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.losses.classification import cross_entropy, log_prior
from nearfar.method import Encoder, Method, Step


class CrossEntropy(Method):
    """Each sample is told from those of other classes by a linear classifier, without any contrast of samples.

    What the others with labels are held against, and what fine-tuning does:

        loss_i = -log softmax(W h_i + b)_y

    Use it for a baseline, or with `--from-run RUN` to fine-tune an encoder. It costs half of what SimCLR does with one
    view (`--view-count 1`). A sample without a label takes no part.

    prior: add the logarithm of each class's share to the logits in training (balanced softmax), for classes of uneven
    sizes.  smoothing: of the targets.

    The balanced softmax: Ren et al. 2020, "Balanced Meta-Softmax for Long-Tailed Visual Recognition", arXiv 2007.10740.
    """

    family = "labels"
    needs_labels = True
    classifies = True
    log_prior: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        classes: int,
        counts: tuple[int, ...],
        prior: bool = False,
        smoothing: float = 0.0,
    ) -> None:
        super().__init__(encoder)
        self.classifier = nn.Linear(encoder.dim, classes)
        known = log_prior(counts)
        self.register_buffer("log_prior", known if prior else torch.zeros(classes), persistent=False)
        self.smoothing, self.entropy = smoothing, float(-(known.exp() * known).sum()) if prior else math.log(classes)

    def classify(self, view: Any) -> Tensor:
        return self.classifier(self.embed(view))  # N x classes

    def forward(self, batch: Batch) -> Step:
        logits = self.classify(torch.cat(batch.views))  # VN x classes
        label = batch.label.repeat(len(batch.views))
        loss = cross_entropy(logits, label, log_prior=self.log_prior, smoothing=self.smoothing)
        right = (logits.detach().argmax(1) == label)[label >= 0].float()
        return Step(loss, {"right": right.sum() / max(1, len(right))})

    def chance(self, batch: int) -> float:
        return self.entropy
