from __future__ import annotations

import torch

from nearfar.batch import Batch
from nearfar.distributed import world
from nearfar.losses.metric import n_pairs
from nearfar.method import Encoder, Method, Step
from nearfar.nn.heads import supcon_head


class NPairs(Method):
    """Each first view finds the last view of a sample of its class among one of every other class.

    A triplet with a negative of each other class at once: a softmax over classes, each of which is stood for by one
    sample. Rows are not normalized; their length is held by a penalty. Of the pairs of a batch, with distinct classes,

        loss_i = log(1 + sum_{j != i} exp(a_i . p_j - a_i . p_i)) + penalty (|a_i|^2 + |p_i|^2) / 2

    Use it when there are many classes with few samples each; it costs what SimCLR does. The paper takes one pair of
    each class; here the samples of a class take turns, in an order drawn for each step: as many such problems as it has
    samples in the batch, so that every view is used once. A sample without a label is a class of its own, and its two
    views the pair, as is the only one of its class; without any label this is one direction of InfoNCE.

    dim: width of the embedding.  penalty: on the squares of lengths; 0.02 in the paper (unverified).

    Sohn 2016, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective", NeurIPS; as a baseline in Khosla
    et al. 2020, arXiv 2004.11362.
    """

    family = "labels"
    needs_labels = True
    sampler = "pk"
    per_class = 2

    def __init__(self, encoder: Encoder, *, dim: int = 128, penalty: float = 0.02) -> None:
        super().__init__(encoder)
        self.projector = supcon_head(encoder.dim, out=dim)
        self.penalty = penalty

    def forward(self, batch: Batch) -> Step:
        z = self.projector(torch.cat(self.embed_all(batch.views))).chunk(len(batch.views))  # N x dim each
        order = torch.randperm(len(batch) * world(), generator=self.clock.generator()).to(z[0].device)
        return Step(n_pairs(z[0], z[-1], batch.label, order, penalty=self.penalty, group=batch.group))
