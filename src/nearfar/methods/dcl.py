from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from nearfar.losses.pairwise import dcl
from nearfar.method import Encoder
from nearfar.methods.simclr import SimCLR


class DCL(SimCLR):
    """Each view is pulled to its other view and pushed from the rest, by two forces that do not weaken each other.

    In SimCLR a pair that is found easily is hardly pulled, and the negatives hardly push; in small batches most pairs
    are. Leaving the positive out of the denominator removes that factor: the pull is 1 / temperature, whatever the
    batch.

        loss_i = -w_i s_ip + log sum_{j != i, p} exp(s_ij),    s_ij = z_i . z_j / temperature

    Use it when batches are small, 32 to 256; it costs what SimCLR does. The loss may be negative. DCLW weights the pull
    by w_i = 2 - exp(z_i . z_p / sigma) / mean_j exp(z_j . z_p(j) / sigma), so that pairs more alike than the others are
    pulled less. The paper gives w as a plain function, so the gradient passes through it; there is no authors' code.

    weighted: DCLW.  sigma: of its weights; larger, more equal.

    Yeh et al. 2022, "Decoupled Contrastive Learning", arXiv 2110.06848.
    """

    family = "negatives"

    def __init__(self, encoder: Encoder, *, weighted: bool = False, sigma: float = 0.5, **simclr: Any) -> None:
        super().__init__(encoder, **simclr)
        self.sigma = sigma if weighted else None

    def loss(self, z1: Tensor, z2: Tensor, group: Tensor | None) -> Tensor:
        return dcl(z1, z2, temperature=self.temperature, sigma=self.sigma, group=group)

    def chance(self, batch: int) -> float:
        return math.log(2 * batch - 2)
