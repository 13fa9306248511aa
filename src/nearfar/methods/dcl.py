from __future__ import annotations

from typing import Any

from torch import Tensor

from nearfar.losses.pairwise import dcl
from nearfar.method import Encoder
from nearfar.methods.simclr import SimCLR
from nearfar.ranges import PositiveFloat


class DCL(SimCLR):
    """Removes the positive pair from the denominator of SimCLR's loss, which helps in small batches.

    In SimCLR an easy positive weakens the gradient of the whole term, most of all in small batches. Without the
    positive in the denominator, its pull is always 1 / temperature:

        loss_i = -w_i s_ip + log sum_{j != i, p} exp(s_ij),    s_ij = z_i . z_j / temperature

    Use it when batches are small, 32 to 256. It costs what SimCLR costs. The loss may be negative.
    Note: w_i is 1, or in DCLW 2 - exp(z_i . z_p / sigma) / mean_j exp(z_j . z_p(j) / sigma), which pulls similar pairs
    less. The gradient passes through w, as the paper gives it as a plain function; there is no released code.

    Args:
        weighted: Use DCLW, the weighted form.
        sigma: Scale of the weights of DCLW; larger makes them more equal.

    Yeh et al. 2022, "Decoupled Contrastive Learning", arXiv 2110.06848.
    """

    title = "DCL: Decoupled Contrastive Learning (Yeh et al. 2022)"
    family = "negative weighting and selection"

    def __init__(self, encoder: Encoder, *, weighted: bool = False, sigma: PositiveFloat = 0.5, **simclr: Any) -> None:
        super().__init__(encoder, **simclr)
        self.sigma = sigma if weighted else None

    def loss(self, z1: Tensor, z2: Tensor, group: Tensor | None) -> Tensor:
        return dcl(z1, z2, temperature=self.temperature, sigma=self.sigma, group=group)
