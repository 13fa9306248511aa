from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor

from nearfar.batch import Batch
from nearfar.losses.false_negatives import detected_columns, detection, find_alike, nt_xent_found
from nearfar.memory.slow_queue import SlowQueue
from nearfar.method import Encoder, Method, Step, equal_rows, frozen_statistics
from nearfar.nn.heads import mlp
from nearfar.ranges import Cosine, NonNegativeInt, PositiveFloat, PositiveInt, UnitInterval


class FNC(Method):
    """Detects likely false negatives in the batch by similarity, and makes them positives or leaves them out.

    The rows most similar to a sample's views are its false negatives F_i:

        attract:    -mean over own views and F_i of s_ij + log sum over all others of exp(s_ij)
        eliminate:  -s_ip + log(exp(s_ip) + sum_{j not in F_i} exp(s_ij))

    With a memory, rows are contrasted with those of a momentum encoder instead, of this batch and of earlier ones, and
    false negatives are found among them by the momentum encoder's rows of all views (the support set).

    Use it when a batch holds many samples of each class, or with a memory that does. It costs SimCLR's step, and a pass
    for each further view; a memory costs another pass for every view.
    Note: With labels, the log reports `precision` and `recall` of F_i. Decided here: the memory holds the views that
    learn alone, and begins as random unit rows.

    Args:
        dim: Width of the embedding.
        temperature: Divides the similarities; 0.1 in the paper.
        treatment: "attract" (the only one in the released code) or "eliminate"; the paper names no default.
        top: Largest number of false negatives of a sample.
        threshold: Cosine similarity above which a row is a false negative; one just as high is not.
        score: Similarity to a sample: the "max" or the "mean" over its views.
        support_learns: Use views beyond the second, which support detection, as anchors too, as in the released code.
        memory: Number of earlier rows; 16 batches in the paper, 0 for none.
        momentum: Momentum of the encoder that makes the memory's rows.

    Huynh et al. 2020, "Boosting Contrastive Self-Supervised Learning with False Negative Cancellation",
    arXiv 2011.11765.
    """

    title = "FNC: False Negative Cancellation (Huynh et al. 2020)"
    family = "negative weighting and selection"
    fewest_views = 2

    def __init__(
        self,
        encoder: Encoder,
        *,
        classes: int,
        dim: PositiveInt = 128,
        temperature: PositiveFloat = 0.1,
        treatment: Literal["attract", "eliminate"] = "attract",
        top: NonNegativeInt = 10,
        threshold: Cosine = 0.7,
        score: Literal["max", "mean"] = "max",
        support_learns: bool = False,
        memory: NonNegativeInt = 0,
        momentum: UnitInterval = 0.999,
    ) -> None:
        super().__init__(encoder)
        widths = (encoder.dim, encoder.dim, encoder.dim, dim)
        self.projector = mlp(widths, norm=True, bias=False, last_bias=False, last_norm=True, last_offset=False)
        self.temperature, self.attract, self.labeled = temperature, treatment == "attract", classes > 0
        self.support_learns, self.find = support_learns, partial(find_alike, top=top, threshold=threshold, score=score)
        self.queue = None
        if memory:
            self.queue = SlowQueue(memory, dim, self.encoder, self.projector, momentum=momentum, labeled=True)

    def forward(self, batch: Batch) -> Step:
        learning, queue = len(batch.views) if self.support_learns else 2, self.queue
        keys = z = support = self.project_all(batch.views[:learning])
        if queue is not None:
            support = queue.embed(self, batch.views)
            keys = support[:learning]
        elif batch.views[learning:]:
            with torch.no_grad(), frozen_statistics(self):
                support = [*z, *self.project_all(batch.views[learning:])]
        loss, false_negatives = self.contrasted(z, keys, support, batch, None if queue is None else queue.keys)
        labels = None if queue is None else queue.label
        log = detection(detected_columns(false_negatives, batch.label, learning, labels)) if self.labeled else {}
        return Step(loss, log, (keys, batch))

    def contrasted(
        self, z: list[Tensor], keys: list[Tensor], support: list[Tensor], batch: Batch, earlier: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        group = None if self.queue is None else self.queue.group
        false_negatives = self.find(keys, support, queue=earlier)  # N x top
        contrast = partial(nt_xent_found, temperature=self.temperature, attract=self.attract, group=batch.group)
        return contrast(z, false_negatives, keys=keys, queue=earlier, queue_group=group), false_negatives

    def after_step(self, step: Step) -> None:
        if self.queue is not None:
            self.queue.update(self, *step.carry)

    def chance(self, batch: Batch) -> Tensor | None:
        if batch.group is not None:
            return None  # of equal rows any are found, of the group or not
        z = [equal_rows(batch)] * (len(batch.views) if self.support_learns else 2)
        earlier = None if self.queue is None else z[0].new_ones(len(self.queue.keys), 1)
        return self.contrasted(z, z, z, batch, earlier)[0]
