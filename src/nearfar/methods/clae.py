from __future__ import annotations

import math
from typing import Any, Literal

from torch import Tensor

from nearfar.batch import Batch
from nearfar.distributed import normalize
from nearfar.losses.pairwise import info_nce_batch, nt_xent
from nearfar.losses.spreading import spreading
from nearfar.method import Encoder, Step, frozen_statistics
from nearfar.methods.simclr import SimCLR
from nearfar.nn.norms import twin_norms
from nearfar.ops.attacks import ascend


class CLAE(SimCLR):
    """Each view finds its other view, and itself after a small change that makes the loss of the whole batch worse.

    The change is one step of the sign of the gradient, from the view itself: there the pull of the positive vanishes,
    so it is the negatives that the step makes harder. Changed views have batch norms of their own:

        x' = x_1 + eps sign(dL(z_1, z(x_1)) / dx_1)        loss = L(z_1, z_2) + alpha L(z_1, z'(x'))

    Use it when views are few or weak and negatives soon too easy; it takes twice the time of SimCLR.
    Decided here: statistics of the second norms move once a step, not twice; the projector is SimCLR's, with norms.

    eps: length of the step, in units of the views, which are images in [0, 1]: the paper's 0.03 counts in units of
    the deviation 0.5 that its images are divided by.  alpha: weight of the changed views.  loss: L, which is
    "nt_xent", "plain" (one direction, the first views against the second) or "spreading" (every pair is told apart).

    Ho and Vasconcelos 2020, "Contrastive Learning with Adversarial Examples", arXiv 2010.12050.
    """

    family = "views"

    def __init__(
        self,
        encoder: Encoder,
        *,
        eps: float = 0.015,
        alpha: float = 1.0,
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

    def attack(self, x: Tensor, z: Tensor, group: Tensor | None) -> Tensor:
        """The views x a step of eps from where they were, uphill: N x ..., without a graph."""
        with frozen_statistics(self):
            return ascend(lambda at: self.loss(z.detach(), self.changed(at), group), x, epsilon=self.eps)

    def forward(self, batch: Batch) -> Step:
        z1, z2 = self.project_all(batch.views)  # N x dim
        z = self.changed(self.attack(batch.views[0], z1, batch.group))
        clean, hard = self.loss(z1, z2, batch.group), self.loss(z1, z, batch.group)
        return Step(clean + self.alpha * hard, {"clean": clean.detach(), "hard": hard.detach()})

    def chance(self, batch: int) -> float:
        others = 2 * batch - 1
        each = math.log(batch if self.form is info_nce_batch else others)
        if self.form is spreading:
            each -= (others - 1) * math.log1p(-1 / others)
        return (1 + self.alpha) * each
