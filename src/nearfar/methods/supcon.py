from __future__ import annotations

from functools import partial
from typing import Literal

from torch import Tensor

from nearfar.batch import Batch
from nearfar.losses.supervised import share_with_positive, supcon, supcon_in
from nearfar.memory.slow_queue import SlowQueue
from nearfar.method import Encoder, Method, Step, equal_rows
from nearfar.nn.heads import simclr_head, supcon_head
from nearfar.ranges import NonNegativeInt, PositiveFloat, PositiveInt, UnitInterval


class SupCon(Method):
    """Contrasts each view with all views in the batch, where all views of its class are positives.

    A sample without a label has its own views as positives, so labels for a part of the data are enough. With P the
    other views of the class of i, and Q an optional queue of momentum embeddings, those of the class being in P too,

        loss_i = -mean_{p in P} s_ip + log(sum_{j != i} exp(s_ij) + sum_Q exp(z_i . q / temperature))

    Use it when most samples have a label. It costs what SimCLR costs; a queue, for small batches, adds one forward
    pass. Then fit a classifier: `nearfar finetune RUN DATA`, or `nearfar train crossentropy DATA --from-run RUN`.
    Note: The paper's queue (79.1 % on ImageNet) has no details and no code. Decided here: it holds keys of all views.

    Args:
        dim: Width of the embedding.
        temperature: Divides the similarities; 0.1 in the paper.
        mean: Mean over positives "outside" (L_out, recommended by the paper) or "inside" the logarithm (L_in).
        base_temperature: Scale the loss by temperature over this; 0.07 in the released code, not in the paper.
        queue: Number of earlier keys; 0 for none.
        momentum: Momentum of the copy that makes the queue's keys.
        norm: Batch norm in the projector, as SimCLR has it. Without it, as in the paper, classes that look alike may
            draw all embeddings into one point.

    Khosla et al. 2020, "Supervised Contrastive Learning", arXiv 2004.11362.
    """

    title = "SupCon: Supervised Contrastive Learning (Khosla et al. 2020)"
    family = "supervised"
    needs_labels = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        dim: PositiveInt = 128,
        temperature: PositiveFloat = 0.1,
        mean: Literal["outside", "inside"] = "outside",
        base_temperature: PositiveFloat | None = None,
        queue: NonNegativeInt = 0,
        momentum: UnitInterval = 0.999,
        norm: bool = False,
    ) -> None:
        super().__init__(encoder)
        self.projector = (simclr_head if norm else supcon_head)(encoder.dim, out=dim)
        self.temperature, self.base_temperature = temperature, base_temperature
        loss = supcon if mean == "outside" else supcon_in
        self.loss = partial(loss, temperature=temperature, base_temperature=base_temperature)
        self.queue = None
        if queue:
            self.queue = SlowQueue(queue, dim, self.encoder, self.projector, momentum=momentum, labeled=True)

    def forward(self, batch: Batch) -> Step:
        queue, loss = self.queue, self.contrasted(self.project_all(batch.views), batch)
        log = {"with_positive": share_with_positive(batch.label, len(batch.views))}
        return Step(loss, log, None if queue is None else (queue.embed(self, batch.views), batch))

    def contrasted(self, z: list[Tensor], batch: Batch) -> Tensor:
        queue = self.queue
        earlier = None if queue is None else (queue.keys, queue.label, queue.group)
        return self.loss(z, batch.label, group=batch.group, queue=earlier)

    def after_step(self, step: Step) -> None:
        if self.queue is not None:
            self.queue.update(self, *step.carry)

    def chance(self, batch: Batch) -> Tensor | None:
        z = equal_rows(batch, 0 if self.queue is None else self.queue.keys.shape[1])
        return self.contrasted([z] * len(batch.views), batch)
