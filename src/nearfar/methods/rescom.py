from __future__ import annotations

import torch
from torch import Tensor

from nearfar.batch import Batch
from nearfar.distributed import normalize
from nearfar.losses.classification import cross_entropy
from nearfar.losses.mined import class_weights, mine, supcon_mined
from nearfar.memory.class_queue import ClassQueue
from nearfar.method import Encoder, Method, Step
from nearfar.nn.heads import LinearClassifier, paco_head


class ResCom(Method):
    """Each view finds the views of its class in the batch, and the hardest keys of it in a queue with as many of each.

    SupCon where some classes are rare is uneven twice: most anchors are of frequent classes, and most pairs. The first
    is met by weights of the classes, the second by a queue with the same number of keys of each. From it come for each
    row the keys of its class that are least like it and those of other classes that are most like it. A classifier
    is trained beside it, by the balanced softmax on both views. With w from effective numbers,

        loss = mean_i -log softmax(W h_i + b + log share)_y + weight mean_i w_y (far_i - near_i)

    Use it to classify where some classes are rare, in one stage; it costs what SimCLR does, and a search of the queue.
    The first views' embeddings enter the queue after the step. Samples without a label mine nothing, have weight 1 and
    their other view as positive. Of fewer keys than are asked for, all are mined. The paper's views for CIFAR have
    AutoAugment and Cutout, which are not here. The defaults are the released ones for CIFAR-100 with factor 100, the
    only file there is.

    dim: width of the embedding; 32 in the paper for CIFAR.  temperature: of the contrast.  slots: keys of each class.
    positives, negatives: hard keys that are mined for each row.  weight: of the contrast.  effective: beta of the
    effective numbers; 0 for no weights.

    Zhong et al. 2022, "Rebalanced Siamese Contrastive Mining for Long-Tailed Recognition", arXiv 2203.11506.
    """

    family = "labels"
    needs_labels = True
    classifies = True
    weights: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        counts: tuple[int, ...],
        dim: int = 128,
        temperature: float = 0.2,
        slots: int = 10,
        positives: int = 1,
        negatives: int = 400,
        weight: float = 0.5,
        effective: float = 0.999999,
    ) -> None:
        super().__init__(encoder)
        if positives > slots:
            raise ValueError(f"{positives} hard positives were asked for, and a class has {slots} slots in the queue")
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
