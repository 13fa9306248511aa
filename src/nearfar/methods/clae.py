from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from nearfar.batch import Batch
from nearfar.distributed import normalize
from nearfar.losses.pairwise import info_nce_batch, nt_xent
from nearfar.losses.spreading import spreading
from nearfar.method import Encoder, Step, frozen_statistics
from nearfar.methods.simclr import SimCLR
from nearfar.nn.norms import twin_norms
from nearfar.ops.attacks import ascend
from nearfar.precision import without_float16
from nearfar.ranges import NonNegativeFloat, PositiveFloat


class CLAE(SimCLR):
    """Trains SimCLR also on adversarial views, which are changed slightly to raise the loss of the batch.

    One signed gradient step (FGSM) from the view itself, where the positive's gradient vanishes, makes the negatives
    harder. Adversarial views have batch norms of their own, in the network z', through which the step is taken too:

        x' = x_1 + eps sign(dL(z'(x_1), z'(x)) / dx at x = x_1)        loss = L(z_1, z_2) + alpha L(z_1, z'(x'))

    Use it when augmentations are weak and negatives soon too easy. It takes twice the time of SimCLR.
    Note: As in the released code, both embeddings of the step pass z'; the first is held constant. Decided here:
    statistics of these batch norms move once a step; the projector is SimCLR's.

    Args:
        eps: Step size, in units of the views (images in [0, 1]); the paper's 0.03 is after division by 0.5.
        alpha: Weight of the adversarial term.
        loss: L: "nt_xent", "plain" (first against second views only) or "spreading" (a logarithm for each pair).

    Ho and Vasconcelos 2020, "Contrastive Learning with Adversarial Examples", arXiv 2010.12050.
    """

    title = "CLAE: Contrastive Learning with Adversarial Examples (Ho and Vasconcelos 2020)"
    family = "augmentations and views"
    changes = "numbers"

    def __init__(
        self,
        encoder: Encoder,
        *,
        eps: PositiveFloat = 0.015,
        alpha: NonNegativeFloat = 1.0,
        loss: Literal["nt_xent", "plain", "spreading"] = "nt_xent",
        **simclr: Any,
    ) -> None:
        super().__init__(encoder, **simclr)
        self.twin_encoder = twin_norms(self.encoder)
        self.twin_projector = twin_norms(self.projector)
        self.eps, self.alpha = eps, alpha
        self.form = {"nt_xent": nt_xent, "plain": info_nce_batch, "spreading": spreading}[loss]

    def loss(self, z1: Tensor, z2: Tensor, group: Tensor | None) -> Tensor:
        return self.form(z1, z2, temperature=self.temperature, group=group)

    def changed(self, view: Tensor) -> Tensor:
        return normalize(self.twin_projector(self.embed(view, self.twin_encoder)))  # N x dim

    def attack(self, x: Tensor, group: Tensor | None) -> Tensor:
        """The views x after a step of size eps that raises their loss beside themselves: N x ..., without a graph."""
        with frozen_statistics(self), without_float16():  # both sides of the loss are of one network
            with torch.no_grad():
                z = self.changed(x)
            return ascend(lambda at: self.loss(z, self.changed(at), group), x, epsilon=self.eps)

    def forward(self, batch: Batch) -> Step:
        z1, z2 = self.project_all(batch.views)  # N x dim
        z = self.changed(self.attack(batch.views[0], batch.group))
        clean, hard = self.loss(z1, z2, batch.group), self.loss(z1, z, batch.group)
        return Step(clean + self.alpha * hard, {"clean": clean.detach(), "hard": hard.detach()})

    def chance(self, batch: Batch) -> Tensor:
        return (1 + self.alpha) * super().chance(batch)
