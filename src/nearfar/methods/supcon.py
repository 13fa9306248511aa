from __future__ import annotations

import math
from functools import partial
from typing import Literal

from nearfar.batch import Batch
from nearfar.losses.supervised import share_with_positive, supcon, supcon_in
from nearfar.memory.slow_queue import SlowQueue
from nearfar.method import Encoder, Method, Step
from nearfar.nn.heads import supcon_head


class SupCon(Method):
    """Each view finds every view of its class, its own other view among them, in the batch.

    SimCLR with labels: samples of one class are positives. A sample without a label has its own views only, so labels
    for a part of the data are enough. With P the other views of the class of i, and Q a queue of what a slow copy of
    the network made of earlier batches, of which those of the class are in P as well,

        loss_i = -mean_{p in P} s_ip + log(sum_{j != i} exp(s_ij) + sum_Q exp(z_i . q / temperature))

    Use it when most samples have a label; it costs what SimCLR does, and with a queue one more forward pass. The queue
    is for small batches; the paper reports 79.1 % on ImageNet with one, without details, and the released code has
    none: that rows are contrasted with the batch and the queue, and the copy makes keys of all views for later steps,
    is decided here. Training has two stages: a classifier is fitted afterward, on the frozen encoder (`nearfar
    finetune RUN DATA`), or is trained with it (`nearfar train crossentropy DATA --from-run RUN`).

    dim: width of the embedding.  temperature: 0.1 in the paper.  mean: over the positives "outside" the logarithm
    (L_out, which the paper recommends) or "inside" it (L_in).  base_temperature: scale the loss by temperature over
    this, as the released code does with 0.07; the paper does not.  queue: number of earlier keys, 0 for none.
    momentum: of the copy that makes them.

    Khosla et al. 2020, "Supervised Contrastive Learning", arXiv 2004.11362.
    """

    family = "labels"
    needs_labels = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        dim: int = 128,
        temperature: float = 0.1,
        mean: Literal["outside", "inside"] = "outside",
        base_temperature: float | None = None,
        queue: int = 0,
        momentum: float = 0.999,
    ) -> None:
        super().__init__(encoder)
        self.projector = supcon_head(encoder.dim, out=dim)
        self.temperature, self.base_temperature = temperature, base_temperature
        loss = supcon if mean == "outside" else supcon_in
        self.loss = partial(loss, temperature=temperature, base_temperature=base_temperature)
        self.queue = None
        if queue:
            self.queue = SlowQueue(queue, dim, self.encoder, self.projector, momentum=momentum, labeled=True)

    def forward(self, batch: Batch) -> Step:
        views, queue = len(batch.views), self.queue
        z = self.project_all(batch.views)  # V of N x dim
        earlier = None if queue is None else (queue.keys, queue.label, queue.group)
        loss = self.loss(z, batch.label, group=batch.group, queue=earlier)
        log = {"with_positive": share_with_positive(batch.label, views)}
        return Step(loss, log, None if queue is None else (queue.embed(self, batch.views), batch))

    def after_step(self, step: Step) -> None:
        if self.queue is not None:
            self.queue.update(self, *step.carry)

    def chance(self, batch: int) -> float:
        scale = 1 if self.base_temperature is None else self.temperature / self.base_temperature
        return scale * math.log(2 * batch - 1 + (0 if self.queue is None else len(self.queue.keys)))
