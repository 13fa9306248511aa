from __future__ import annotations

import torch

from nearfar.batch import Batch
from nearfar.distributed import world
from nearfar.losses.metric import n_pairs
from nearfar.method import Encoder, Method, Step
from nearfar.nn.heads import supcon_head
from nearfar.ranges import NonNegativeFloat, PositiveInt


class NPairs(Method):
    """Contrasts two views of each class, one as anchor and one as positive, with one positive of every other class.

    It is a softmax over classes, each represented by one sample. Rows are not normalized; a penalty limits their
    length. Of the pairs of a batch, with distinct classes,

        loss_i = log(1 + sum_{j != i} exp(a_i . p_j - a_i . p_i)) + penalty (|a_i|^2 + |p_i|^2) / 2

    Use it when there are many classes with few samples each. It costs what SimCLR costs.
    Note: The paper takes one pair of each class. Here the samples of a class take turns in a random order, so that
    every view is used once. A sample without a label, or alone in its class, gives its two views as the pair; without
    any label this is one direction of InfoNCE.

    Args:
        dim: Width of the embedding.
        penalty: Weight of the squared lengths; 0.02 in the paper (unverified).

    Sohn 2016, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective", NeurIPS; as a baseline in Khosla
    et al. 2020, arXiv 2004.11362.
    """

    title = "N-pair loss: Multi-class N-pair Loss (Sohn 2016)"
    family = "supervised"
    needs_labels = True
    sampler = "pk"
    per_class = 2

    def __init__(self, encoder: Encoder, *, dim: PositiveInt = 128, penalty: NonNegativeFloat = 0.02) -> None:
        super().__init__(encoder)
        self.projector = supcon_head(encoder.dim, out=dim)
        self.penalty = penalty

    def forward(self, batch: Batch) -> Step:
        z = self.projector(torch.cat(self.embed_all(batch.views))).chunk(len(batch.views))  # N x dim each
        order = torch.randperm(len(batch) * world(), generator=self.clock.generator()).to(z[0].device)
        return Step(n_pairs(z[0], z[-1], batch.label, order, penalty=self.penalty, group=batch.group))
