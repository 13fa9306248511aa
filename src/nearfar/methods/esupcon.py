from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.distributed import normalize
from nearfar.losses.centers import centers
from nearfar.losses.classification import cross_entropy, log_prior
from nearfar.losses.parametric import parametric
from nearfar.method import Encoder, Method, Step
from nearfar.nn.heads import supcon_head


class ESupCon(Method):
    """Each view finds the views and the prototype of its class, and each prototype the views of its class.

    A prototype w_c of unit length is one more row of the batch, positive for its class and negative for the others, so
    that the classifier is learned by the contrast itself. With P_i the other views of the class of i, and similarities
    s_ij = z_i . z_j / T and b_ic = w_c . z_i / T,

        D_i = sum_{j != i} exp(s_ij) + sum_c exp(b_ic)      l_i = log D_i - (b_iy + sum_p s_ip) / (1 + |P_i|)
        l_c = -mean_{i: y_i = c} b_ic + log sum_j exp(b_jc)     loss = mean_i l_i + beta mean_c l_c

    where c are the classes in the batch. Use it when features and classifier are wanted from one stage; it costs what
    SupCon does. The paper is described, and the formula reconstructed, from its words and its overview figure: the
    equations are unverified, and there is no public code. A sample without a label is contrasted with samples alone.
    `classify` goes by prototypes alone. PaCo differs by logits without bounds, a weight of the samples and a queue.

    dim: width of the embedding.  temperature: T.  beta: weight of the prototypes' own loss; 0 takes it out.  joint:
    weight of a cross-entropy of the b_ic, 0 in the paper.  prior: add the logarithm of each class's share to the b_ic
    of l_i and of the cross-entropy, for classes of uneven sizes; an extension.

    Aljundi et al. 2022, "Contrastive Classification and Representation Learning with Probabilistic Interpretation",
    arXiv 2211.03646.
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
        dim: int = 128,
        temperature: float = 0.1,
        beta: float = 1.0,
        joint: float = 0.0,
        prior: bool = False,
    ) -> None:
        super().__init__(encoder)
        self.projector = supcon_head(encoder.dim, out=dim)
        self.prototypes = nn.Parameter(torch.randn(classes, dim))
        self.register_buffer("log_prior", log_prior(counts) if prior else torch.zeros(classes), persistent=False)
        self.temperature, self.beta, self.joint = temperature, beta, joint

    def logits(self, z: Tensor) -> Tensor:
        return z @ normalize(self.prototypes).T / self.temperature  # N x classes

    def classify(self, view: Any) -> Tensor:
        return self.logits(normalize(self.projector(self.embed(view))))

    def forward(self, batch: Batch) -> Step:
        label, views = batch.label, len(batch.views)
        z = torch.cat(self.project_all(batch.views))  # VN x dim
        b, none = self.logits(z), z.new_zeros(0, z.shape[1])
        queue = none, label[:0], label[:0]
        loss = parametric(
            z, b + self.log_prior, label, none, queue, temperature=self.temperature, alpha=1.0, group=batch.group
        )
        every = centers(normalize(self.prototypes), list(z.chunk(views)), label, temperature=self.temperature)
        entropy = cross_entropy(b, label.repeat(views), log_prior=self.log_prior)
        log = {"samples": loss.detach(), "prototypes": every.detach(), "entropy": entropy.detach()}
        return Step(loss + self.beta * every + self.joint * entropy, log)

    def chance(self, batch: int) -> float | None:
        if self.log_prior.any():
            return None  # it depends on the labels of the batch
        classes = len(self.prototypes)
        return math.log(2 * batch - 1 + classes) + self.beta * math.log(2 * batch) + self.joint * math.log(classes)
