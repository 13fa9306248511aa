from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from nearfar.batch import Batch
from nearfar.distributed import normalize, share
from nearfar.memory.bank import Bank
from nearfar.memory.bank_contrast import BankContrast
from nearfar.method import Encoder, Look, Method, Step
from nearfar.nn.heads import moco_v1_head
from nearfar.ranges import NonNegativeFloat, PositiveFloat, PositiveInt, UnitInterval


class InstDisc(Method):
    """Matches each view with its sample's stored embedding, against random rows of a memory bank of all samples.

    Every sample is its own class, whose weight is its embedding when last seen. With n samples, K drawn rows of the
    bank M, and Z estimated from the first batch and kept,

        loss_i = -log h_i(M_i) - sum_j log(1 - h_i(M_j)) + proximal |v_i - M_i|^2
        h_i(x) = P_i(x) / (P_i(x) + K / n),    P_i(x) = exp(v_i . x / temperature) / Z

    Use it for long trainings in small batches, at SimCLR's cost: negatives need no forward pass, but are an epoch old.
    Note: All views are used, and written in turn; the paper has one. Negatives are drawn once a batch, not for each
    row; a sample's own row may be among them, as in the released code.

    Args:
        dim: Width of the embedding.
        temperature: Divides the similarities; 0.07 in the paper for ImageNet, 0.1 for CIFAR.
        negatives: Number K of bank rows drawn as negatives.
        contrast: "nce" (above), "infonce" (softmax over own and drawn rows, as in later code) or "softmax" (whole
            bank).
        momentum: Share of a bank row that stays when its sample is seen.
        proximal: Weight of the paper's second term, from a sample's second time on; 0 in the released code.
        first: Initial bank: "noise", random rows (of unit length here; the released code does not normalize them), or a
            "look" that embeds all samples, which spares a few poor epochs.

    Wu et al. 2018, "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", arXiv 1805.01978.
    """

    title = "InstDisc: Non-Parametric Instance Discrimination (Wu et al. 2018)"
    family = "queue or memory bank"
    log_z: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        samples: int,
        dim: PositiveInt = 128,
        temperature: PositiveFloat = 0.07,
        negatives: PositiveInt = 4096,
        contrast: Literal["nce", "infonce", "softmax"] = "nce",
        momentum: UnitInterval = 0.5,
        proximal: NonNegativeFloat = 30.0,
        first: Literal["noise", "look"] = "noise",
    ) -> None:
        super().__init__(encoder)
        self.projector = moco_v1_head(encoder.dim, out=dim)
        self.bank = Bank(samples, dim)
        self.register_buffer("log_z", torch.zeros(()))
        self.contrast = BankContrast(contrast, temperature, negatives)
        self.momentum, self.proximal, self.first = momentum, proximal, first

    def represent(self, view: Any) -> Tensor:
        return normalize(self.projector(self.embed(view)))  # N x dim

    def before_epoch(self, look: Look) -> None:
        if self.first == "look" and not self.bank.seen.any():
            self.bank.rows.copy_(look(self.represent))

    def forward(self, batch: Batch) -> Step:
        v, index = torch.cat(self.project_all(batch.views)), batch.index.repeat(len(batch.views))  # VN x dim
        loss, log_z = self.contrast(v, batch, self.bank, self.log_z, self.clock.generator())
        moved = (v - self.bank.rows[index]).square().sum(1) * self.bank.seen[index]
        loss = loss + self.proximal * share(moved)
        return Step(loss, carry=(v.chunk(len(batch.views)), log_z, batch))

    def after_step(self, step: Step) -> None:
        views, log_z, batch = step.carry
        self.log_z.copy_(log_z)
        for v in views:  # one view after the other, so that the order is that of one process
            self.bank.write(batch.index, v, keep=self.momentum, group=batch.group)

    def pushes_at(self) -> float | None:
        return self.contrast.temperature

    def chance(self, batch: Batch) -> Tensor | None:
        return self.contrast.chance(batch, len(batch.views), self.bank, self.clock.generator())
