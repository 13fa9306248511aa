from __future__ import annotations

import torch

from nearfar.batch import Batch
from nearfar.distributed import normalize
from nearfar.losses.parametric import parametric
from nearfar.memory.queue import Queue
from nearfar.method import Encoder, Method, Step
from nearfar.nn.heads import LinearClassifier, gpaco_head
from nearfar.ranges import NonNegativeFloat, PositiveFloat, PositiveInt, UnitInterval


class GPaCo(Method):
    """Trains a classifier by contrasting views with learned class centers, the batch and a queue, with one encoder.

    It is PaCo without a momentum encoder; both views are anchors. b: classifier logits plus log class frequencies.

        loss_i = log D_i - (beta b_iy + alpha sum_p s_ip) / (beta + alpha |P_i|)
        D_i = sum_c exp(b_ic) + gamma sum_{j != i} exp(s_ij),    s_ij = z_i . k_j / temperature

    Use it to classify, with rare classes or without (`--no-prior --smoothing 0.1`). It costs what SimCLR costs.
    Note: Second views enter the queue, which starts without labels. Samples without a label are contrasted with samples
    only. The paper's RandAugment is left out.

    Args:
        dim: Width of the embedding; 32 in the paper for CIFAR.
        queue: Number of earlier embeddings.
        temperature: Divides the similarities; 0.05 for CIFAR.
        alpha: Weight of each positive sample; 0.01 for CIFAR.
        beta: Weight of the class center.
        gamma: Weight of the samples in D.
        smoothing: Share of beta that goes to the other centers (label smoothing).
        scale: Divides the logits b.
        prior: Add the log class frequency to b in training; `classify` leaves it out.

    Cui et al. 2022, "Generalized Parametric Contrastive Learning", arXiv 2209.12400.
    """

    title = "GPaCo: Generalized Parametric Contrastive Learning (Cui et al. 2022)"
    family = "supervised"
    needs_labels = True
    classifies = True
    fewest_views = most_views = 2

    def __init__(
        self,
        encoder: Encoder,
        *,
        counts: tuple[int, ...],
        dim: PositiveInt = 128,
        queue: PositiveInt = 8192,
        temperature: PositiveFloat = 0.2,
        alpha: NonNegativeFloat = 0.045,
        beta: NonNegativeFloat = 1.0,
        gamma: NonNegativeFloat = 1.0,
        smoothing: UnitInterval = 0.0,
        scale: PositiveFloat = 1.0,
        prior: bool = True,
    ) -> None:
        super().__init__(encoder)
        self.projector = gpaco_head(encoder.dim, out=dim)
        self.classifier = LinearClassifier(encoder.dim, counts, prior=prior)
        self.queue = Queue(queue, dim, labeled=True)
        self.weights = {"alpha": alpha, "beta": beta, "gamma": gamma, "smoothing": smoothing}
        self.temperature, self.scale = temperature, scale

    def forward(self, batch: Batch) -> Step:
        h = torch.cat(self.embed_all(batch.views))  # 2N x encoder.dim
        z = normalize(self.projector(h))
        b = self.classifier.balanced(h) / self.scale  # 2N x classes
        earlier = self.queue.keys, self.queue.label, self.queue.group
        none = z[:0]
        loss = parametric(
            z, b, batch.label, none, earlier, temperature=self.temperature, group=batch.group, **self.weights
        )
        return Step(loss, carry=(z.chunk(2)[1], batch))

    def after_step(self, step: Step) -> None:
        z, batch = step.carry
        self.queue.enqueue(z, batch.group, batch.label)
