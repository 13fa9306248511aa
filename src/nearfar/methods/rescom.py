from __future__ import annotations

import torch
from torch import Tensor

from nearfar.batch import Batch
from nearfar.distributed import normalize
from nearfar.errors import UserError
from nearfar.losses.classification import cross_entropy
from nearfar.losses.mined import class_weights, mine, supcon_mined
from nearfar.memory.class_queue import ClassQueue
from nearfar.method import Encoder, Method, Step
from nearfar.nn.heads import LinearClassifier, paco_head
from nearfar.ranges import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, ShareBelowOne


class ResCom(Method):
    """Trains SupCon for imbalanced classes, with class weights, a class-balanced queue and hard keys mined from it.

    Class weights w (effective numbers) balance anchors; a queue with equally many keys of each class balances pairs:

        loss = mean_i -log softmax(W h_i + b + log share)_y + weight mean_i w_y (far_i - near_i)

    Use it to classify when some classes are rare, in one stage. It costs what SimCLR costs, and a search of the queue.
    Note: Samples without a label mine nothing. AutoAugment and Cutout are left out. Defaults are CIFAR-100's.

    Args:
        dim: Width of the embedding; 32 in the paper for CIFAR.
        temperature: Divides the similarities.
        slots: Keys of each class in the queue.
        positives: Keys of its class, the least similar, mined for each row; all, if there are fewer.
        negatives: Keys of other classes, the most similar, mined for each row; all, if there are fewer.
        weight: Weight of the contrastive term.
        effective: Parameter of the effective numbers; 0 for no weights. Unlabeled samples have weight 1.

    Zhong et al. 2022, "Rebalanced Siamese Contrastive Mining for Long-Tailed Recognition", arXiv 2203.11506.
    """

    title = "ResCom: Rebalanced Siamese Contrastive Mining (Zhong et al. 2022)"
    family = "supervised"
    needs_labels = True
    classifies = True
    weights: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        counts: tuple[int, ...],
        dim: PositiveInt = 128,
        temperature: PositiveFloat = 0.2,
        slots: PositiveInt = 10,
        positives: NonNegativeInt = 1,
        negatives: NonNegativeInt = 400,
        weight: NonNegativeFloat = 0.5,
        effective: ShareBelowOne = 0.999999,
    ) -> None:
        super().__init__(encoder)
        if positives > slots:
            raise UserError(f"{positives} hard positives were asked for, and a class has {slots} slots in the queue")
        self.projector = paco_head(encoder.dim, out=dim)
        self.classifier = LinearClassifier(encoder.dim, counts)
        self.queue = ClassQueue(len(counts), slots, dim)
        self.register_buffer("weights", class_weights(counts, effective), persistent=False)
        self.mined = {"positives": positives, "negatives": negatives}
        self.temperature, self.weight = temperature, weight

    def forward(self, batch: Batch) -> Step:
        views, label, queue, group = len(batch.views), batch.label, self.queue, batch.group
        h = torch.cat(self.embed_all(batch.views))  # VN x encoder.dim
        z = normalize(self.projector(h))
        classified = cross_entropy(self.classifier.balanced(h), label.repeat(views))
        groups = None if group is None else (group.repeat(views), queue.group)
        mined = mine(z, label.repeat(views), queue.keys, queue.label, groups=groups, **self.mined)
        z = list(z.chunk(views))
        loss = supcon_mined(z, label, queue.keys, mined, temperature=self.temperature, weight=self.weights, group=group)
        log = {"classified": classified.detach(), "contrast": loss.detach()}
        return Step(classified + self.weight * loss, log, carry=(z[0], label, group))

    def after_step(self, step: Step) -> None:
        self.queue.enqueue(*step.carry)
