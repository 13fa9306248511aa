from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.losses.pairwise import nt_xent
from nearfar.memory.slow_queue import SlowQueue
from nearfar.method import Encoder, Step
from nearfar.methods.simclr import SimCLR
from nearfar.nn.heads import first_layers, simclr_head
from nearfar.ranges import NonNegativeInt, PositiveInt, UnitInterval


class SimCLRv2(SimCLR):
    """Trains SimCLR with a deeper projector, and optionally with a momentum queue of further negatives.

    Fine-tuning for few labels starts from the projector's first layer, `middle(1)`. A memory Q holds embeddings that a
    momentum copy of encoder and projector made of earlier views:

        loss_i = -s_ip + log(sum_{j != i} exp(s_ij) + sum_Q exp(z_i . q / temperature))

    Use it for large networks and few labels. It costs what SimCLR costs; a memory adds one forward pass of both views.
    The paper's next steps are `nearfar finetune RUN DATA --train full --layer 1` and `nearfar distill`.
    Note: The memory gains a point in the paper and is not in the released code. That the copy embeds both views, and
    writes them after the step, was decided here.

    Args:
        layers: Layers of the projector; 2 in SimCLR.
        memory: Number of rows in the memory; 65,536 in the paper, 0 for none.
        momentum: Momentum of the copy that fills the memory.

    Chen et al. 2020, "Big Self-Supervised Models are Strong Semi-Supervised Learners", arXiv 2006.10029.
    """

    title = "SimCLRv2: Big Self-Supervised Models are Strong Semi-Supervised Learners (Chen et al. 2020)"

    def __init__(
        self,
        encoder: Encoder,
        *,
        layers: PositiveInt = 3,
        memory: NonNegativeInt = 0,
        momentum: UnitInterval = 0.999,
        dim: PositiveInt = 128,
        **simclr: Any,
    ) -> None:
        super().__init__(encoder, projector=simclr_head(encoder.dim, out=dim, layers=layers), **simclr)
        self.queue = None
        if memory:
            self.queue = SlowQueue(memory, dim, self.encoder, self.projector, momentum=momentum)

    def forward(self, batch: Batch) -> Step:
        if self.queue is None:
            return super().forward(batch)
        z1, z2 = self.project_all(batch.views)  # N x dim
        return Step(self.loss(z1, z2, batch.group), carry=(self.queue.embed(self, batch.views), batch))

    def loss(self, z1: Tensor, z2: Tensor, group: Tensor | None) -> Tensor:
        queue = None if self.queue is None else (self.queue.keys, self.queue.group)
        return nt_xent(z1, z2, temperature=self.temperature, group=group, queue=queue)

    def after_step(self, step: Step) -> None:
        if self.queue is not None:
            self.queue.update(self, *step.carry)

    def middle(self, layer: int = 1) -> nn.Sequential:
        """The encoder and the first layers of the projector, with norm and ReLU, for fine-tuning.

        layer: how many of them; 0 is the encoder alone, 1 the paper's choice, -1 the whole projector.
        """
        return nn.Sequential(self.encoder, *first_layers(self.projector, layer))
