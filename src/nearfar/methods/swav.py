from __future__ import annotations

import math

import torch
from torch import Tensor

from nearfar.batch import Batch
from nearfar.clustering.sinkhorn import sinkhorn
from nearfar.distributed import local
from nearfar.losses.assignment import swapped_assignment
from nearfar.memory.prototypes import Prototypes
from nearfar.memory.queue import Queue
from nearfar.method import Encoder, Method, Step
from nearfar.nn.heads import swav_head
from nearfar.ranges import NonNegativeInt, PositiveFloat, PositiveInt


class SwAV(Method):
    """Predicts the cluster assignment of one view from the other, with assignments balanced over learned prototypes.

    Sinkhorn iterations on the first two views give soft assignments (codes) c in which all prototypes are used equally;
    further, smaller crops only predict:

        loss = mean over pairs of views v != w of  -sum_k c_wk log softmax(z_v . prototypes / temperature)_k

    Use it with many small crops, and when clusters are wanted besides the representation. It costs what SimCLR costs
    for as many pixels.

    Args:
        dim: Width of the embedding.
        hidden: Width of the projector's hidden layer.
        prototypes: Number of prototypes; about ten times the expected classes.
        temperature: Temperature of the prediction.
        epsilon: Sinkhorn's regularization; larger gives softer codes.
        iterations: Sinkhorn iterations.
        queue: Earlier embeddings of each assigned view that join Sinkhorn, for batches much smaller than `prototypes`;
            the paper uses 3840 for a batch of 256, none for 4096.
        queue_start: Epoch from which the queue is filled; it is used once full.
        freeze: Epochs during which prototypes do not move.

    Caron et al. 2020, "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments", arXiv 2006.09882.
    """

    title = "SwAV: Swapping Assignments between Views (Caron et al. 2020)"
    family = "clustering"
    fewest_views = 2

    def __init__(
        self,
        encoder: Encoder,
        *,
        dim: PositiveInt = 128,
        hidden: PositiveInt = 2048,
        prototypes: PositiveInt = 3000,
        temperature: PositiveFloat = 0.1,
        epsilon: PositiveFloat = 0.05,
        iterations: PositiveInt = 3,
        queue: NonNegativeInt = 0,
        queue_start: NonNegativeInt = 15,
        freeze: NonNegativeInt = 1,
    ) -> None:
        super().__init__(encoder)
        self.projector = swav_head(encoder.dim, hidden=hidden, out=dim)
        self.prototypes = Prototypes(prototypes, dim)
        self.queue_1 = Queue(queue, dim) if queue else None
        self.queue_2 = Queue(queue, dim) if queue else None
        self.temperature, self.epsilon, self.iterations = temperature, epsilon, iterations
        self.queue_start, self.freeze = queue_start, freeze

    def forward(self, batch: Batch) -> Step:
        z = self.project_all(batch.views)  # V of N x dim; views of one size pass together
        scores = [self.prototypes(part) for part in z]  # V of N x prototypes
        codes = [self.codes(scores[0].detach(), self.queue_1), self.codes(scores[1].detach(), self.queue_2)]
        loss = swapped_assignment(scores, codes, temperature=self.temperature)
        return Step(loss, carry=[part.detach() for part in z[:2]])

    def codes(self, scores: Tensor, queue: Queue | None) -> Tensor:
        if queue is not None and queue.count >= len(queue.keys):
            earlier = self.prototypes(local(queue.keys)).detach()
            both = torch.cat([earlier, scores])
            return sinkhorn(both, epsilon=self.epsilon, iterations=self.iterations)[len(earlier) :]
        return sinkhorn(scores, epsilon=self.epsilon, iterations=self.iterations)

    def before_step(self) -> None:
        if self.clock.epoch < self.freeze:
            self.prototypes.weight.grad = None

    def after_step(self, step: Step) -> None:
        self.prototypes.renormalize()
        if self.clock.epoch >= self.queue_start:
            for queue, keys in zip((self.queue_1, self.queue_2), step.carry, strict=True):
                if queue is not None:
                    queue.enqueue(keys)

    def pushes_at(self) -> float | None:
        return None  # rows meet prototypes, and no other samples

    def chance(self, batch: Batch) -> float:
        return math.log(len(self.prototypes.weight))
