from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.distributed import normalize
from nearfar.losses.pairwise import info_nce
from nearfar.memory.queue import Queue
from nearfar.method import Encoder, Method, Step, equal_rows
from nearfar.nn.heads import moco_v1_head, moco_v2_head
from nearfar.nn.momentum import MomentumPair
from nearfar.nn.norms import SplitBatchNorm, shuffled, split_norms
from nearfar.ranges import PositiveFloat, PositiveInt, UnitInterval


class MoCo(Method):
    """Contrasts each query with its key from a momentum encoder and with a long queue of earlier keys.

    The queue makes the number of negatives independent of the batch; the momentum encoder keeps old keys comparable:

        loss_i = -q_i . k_i / t + log(exp(q_i . k_i / t) + sum_Q exp(q_i . k / t)),    t: temperature

    Use it when many negatives are wanted from small batches. It costs less than SimCLR: only queries need a gradient.
    Version 2 is the default; version 1 is `head="linear", temperature=0.07` with the views `moco_v1`.

    Args:
        dim: Width of the embedding.
        queue: Number of negatives.
        momentum: Momentum of the key encoder: the share of its weights that a step keeps.
        temperature: Divides the similarities; 0.2 in v2, 0.07 in v1.
        head: Projector: "mlp" (v2) or "linear" (v1).
        splits: Parts of the global batch that batch norm sees separately, as on that many devices, with keys shuffled
            among them; otherwise the statistics reveal which key belongs to which query.
        symmetric: Use both views as queries and average, as the authors' CIFAR demo can.

    He et al. 2019, "Momentum Contrast for Unsupervised Visual Representation Learning", arXiv 1911.05722; Chen et al.
    2020, "Improved Baselines with Momentum Contrastive Learning", arXiv 2003.04297.
    """

    title = "MoCo: Momentum Contrast, v1 and v2 (He et al. 2019)"
    family = "queue or memory bank"
    fewest_views = most_views = 2

    def __init__(
        self,
        encoder: Encoder,
        *,
        dim: PositiveInt = 128,
        queue: PositiveInt = 65536,
        momentum: UnitInterval = 0.999,
        temperature: PositiveFloat = 0.2,
        head: Literal["mlp", "linear"] = "mlp",
        splits: PositiveInt = 8,
        symmetric: bool = False,
        projector: nn.Module | None = None,  # in place of what `head` names
        labeled: bool = False,  # whether the queue keeps labels
    ) -> None:
        super().__init__(split_norms(encoder, splits))
        make = moco_v2_head if head == "mlp" else moco_v1_head
        self.projector = make(encoder.dim, out=dim) if projector is None else projector
        self.slow = MomentumPair(self.encoder, self.projector)
        self.queue = Queue(queue, dim, labeled=labeled)
        self.momentum, self.temperature, self.symmetric = momentum, temperature, symmetric
        self.shuffles = any(isinstance(module, SplitBatchNorm) for module in self.encoder.modules())

    def query(self, view: Any) -> Tensor:
        return normalize(self.projector(self.embed(view)))  # N x dim

    def slow_rows(self, view: Any) -> Tensor:
        return normalize(self.slow(self, view))  # N x dim

    @torch.no_grad()
    def key(self, view: Any) -> Tensor:
        return shuffled(self.slow_rows, view, self.clock.generator()) if self.shuffles else self.slow_rows(view)

    def forward(self, batch: Batch) -> Step:
        v1, v2 = batch.views
        if not self.symmetric:
            q, k = self.query(v1), self.key(v2)
            return Step(self.loss(q, k, batch), carry=([k], batch))
        q1, q2 = self.each(self.query, [v1, v2])
        k1, k2 = self.each(self.key, [v1, v2])
        loss = self.loss(q1, k2, batch) + self.loss(q2, k1, batch)
        return Step(loss / 2, carry=([k1, k2], batch))

    def loss(self, q: Tensor, k: Tensor, batch: Batch) -> Tensor:
        return info_nce(q, k, self.queue.keys, temperature=self.temperature, groups=self.groups(batch))

    def groups(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """The groups of queries and keys, where there are any."""
        return None if batch.group is None else (batch.group, self.queue.group)

    def after_step(self, step: Step) -> None:
        self.slow.follow(self, self.momentum)
        views, batch = step.carry
        for keys in views:  # one view after the other, so that the order is that of one process
            self.queue.enqueue(keys, batch.group, batch.label)

    def chance(self, batch: Batch) -> Tensor | None:
        q = equal_rows(batch, self.queue.keys.shape[1])
        return self.loss(q, q, batch)
