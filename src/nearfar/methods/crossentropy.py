from __future__ import annotations

import torch
from torch import Tensor

from nearfar.batch import Batch
from nearfar.losses.classification import cross_entropy
from nearfar.losses.prediction import solved
from nearfar.method import Encoder, Method, Step
from nearfar.nn.heads import LinearClassifier
from nearfar.ranges import UnitInterval


class CrossEntropy(Method):
    """Trains encoder and linear classifier with cross-entropy on the labels, without any contrast.

    It is the baseline for the other supervised methods, and what fine-tuning does:

        loss_i = -log softmax(W h_i + b)_y

    Use it as a baseline, or with `--from-run RUN` to fine-tune an encoder. It costs half of SimCLR with one view
    (`--view-count 1`). A sample without a label takes no part.

    Args:
        prior: Add the log frequency of each class to the logits in training (balanced softmax), for imbalanced classes.
        smoothing: Label smoothing of the targets.

    Ren et al. 2020, "Balanced Meta-Softmax for Long-Tailed Visual Recognition" (the balanced softmax),
    arXiv 2007.10740.
    """

    title = "Cross-entropy: a linear classifier, optionally with balanced softmax (Ren et al. 2020)"
    family = "supervised"
    needs_labels = True
    classifies = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        counts: tuple[int, ...],
        prior: bool = False,
        smoothing: UnitInterval = 0.0,
    ) -> None:
        super().__init__(encoder)
        self.classifier = LinearClassifier(encoder.dim, counts, prior=prior)
        self.smoothing = smoothing

    def forward(self, batch: Batch) -> Step:
        logits = self.classifier(torch.cat(self.embed_all(batch.views)))  # VN x classes
        label = batch.label.repeat(len(batch.views))
        loss = cross_entropy(logits, label, log_prior=self.classifier.log_prior, smoothing=self.smoothing)
        return Step(loss, {"right": solved(logits, label)})

    def chance(self, batch: Batch) -> Tensor:
        known = self.classifier.log_prior
        logits = known.new_zeros(len(batch), len(known))
        return cross_entropy(logits, batch.label, log_prior=known, smoothing=self.smoothing)
