from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.distributed import normalize
from nearfar.losses.centers import centers
from nearfar.losses.classification import cross_entropy, log_prior
from nearfar.losses.parametric import parametric
from nearfar.method import Encoder, Method, Step, equal_rows
from nearfar.nn.heads import supcon_head
from nearfar.ranges import NonNegativeFloat, PositiveFloat, PositiveInt


class ESupCon(Method):
    """Trains features and a prototype classifier together by adding class prototypes to SupCon's batch.

    A prototype w_c of unit length is a positive for the samples of its class and a negative for all others. With P_i
    the other views of the class of i, c the classes in the batch, s_ij = z_i . z_j / T and b_ic = w_c . z_i / T,

        D_i = sum_{j != i} exp(s_ij) + sum_c exp(b_ic)      l_i = log D_i - (b_iy + sum_p s_ip) / (1 + |P_i|)
        l_c = -mean_{i: y_i = c} b_ic + log sum_j exp(b_jc)     loss = mean_i l_i + beta mean_c l_c

    Use it when features and classifier are wanted from one stage. It costs what SupCon costs.
    Note: The equations are reconstructed from the paper's text and overview figure; they are unverified, and there is
    no public code. A sample without a label is contrasted with samples only. `classify` uses the prototypes alone. PaCo
    differs by unbounded logits, a weight of the samples and a queue.

    Args:
        dim: Width of the embedding.
        temperature: T, which divides the similarities.
        beta: Weight of the prototypes' own loss l_c; 0 removes it.
        joint: Weight of an additional cross-entropy on b_ic; 0 in the paper.
        prior: Add the log frequency of each class to b_ic, for imbalanced classes; an extension of ours.

    Aljundi et al. 2022, "Contrastive Classification and Representation Learning with Probabilistic Interpretation",
    arXiv 2211.03646.
    """

    title = "ESupCon: Contrastive Classification and Representation Learning (Aljundi et al. 2022)"
    family = "supervised"
    needs_labels = True
    classifies = True
    log_prior: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        classes: int,
        counts: tuple[int, ...],
        dim: PositiveInt = 128,
        temperature: PositiveFloat = 0.1,
        beta: NonNegativeFloat = 1.0,
        joint: NonNegativeFloat = 0.0,
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
        samples, prototypes, entropy = self.losses(torch.cat(self.project_all(batch.views)), batch)
        log = {"samples": samples.detach(), "prototypes": prototypes.detach(), "entropy": entropy.detach()}
        return Step(self.weighted(samples, prototypes, entropy), log)

    def losses(self, z: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Those of the samples and of the prototypes, and the cross-entropy: z is VN x dim."""
        label, views = batch.label, len(batch.views)
        b, none = self.logits(z), z.new_zeros(0, z.shape[1])
        queue = none, label[:0], label[:0]
        samples = parametric(
            z, b + self.log_prior, label, none, queue, temperature=self.temperature, alpha=1.0, group=batch.group
        )
        every = centers(normalize(self.prototypes), list(z.chunk(views)), label, temperature=self.temperature)
        entropy = cross_entropy(b, label.repeat(views), log_prior=self.log_prior)
        return samples, every, entropy

    def weighted(self, samples: Tensor, prototypes: Tensor, entropy: Tensor) -> Tensor:
        return samples + self.beta * prototypes + self.joint * entropy

    def chance(self, batch: Batch) -> Tensor:
        z = equal_rows(batch, self.projector.dim).repeat(len(batch.views), 1)
        return self.weighted(*self.losses(z.to(self.prototypes.dtype), batch))
