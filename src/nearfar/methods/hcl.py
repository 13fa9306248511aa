from __future__ import annotations

from typing import Any

from torch import Tensor

from nearfar.losses.negatives import hcl
from nearfar.method import Encoder
from nearfar.methods.debiased import Debiased
from nearfar.ranges import NonNegativeFloat, NonNegativeInt


class HCL(Debiased):
    """Weighs the negatives of the debiased loss by their similarity to the anchor, so that hard ones count most.

    Weights exp(beta s), with s the similarity over the temperature, act as if negatives were sampled near the anchor:

        Ng_i = max((R_i - tau_plus N pos_i) / (1 - tau_plus), N exp(-1 / temperature))
        R_i = N sum_j e_ij^(1 + beta) / sum_j e_ij^beta

    Use it when SimCLR soon finds most negatives easy; keep the correction `tau_plus`, as the hardest negatives are the
    most likely to be false. It costs what SimCLR costs, with two sums over the pairs.
    Note: The gradient passes through the weights, and beta multiplies s, not the cosine, as in the released code. The
    authors' 9 annealing steps are not verified to be equally spaced.

    Args:
        beta: Concentration on hard negatives; 0 is the debiased loss.
        anneal: Number of equal steps in which beta falls to 0 over training; 9 for the authors; 0 keeps beta.

    Robinson et al. 2021, "Contrastive Learning with Hard Negative Samples", arXiv 2010.04592.
    """

    title = "HCL: Contrastive Learning with Hard Negative Samples (Robinson et al. 2021)"

    def __init__(
        self, encoder: Encoder, *, beta: NonNegativeFloat = 1.0, anneal: NonNegativeInt = 0, **debiased: Any
    ) -> None:
        super().__init__(encoder, **debiased)
        self.beta, self.anneal = beta, anneal

    def loss(self, z1: Tensor, z2: Tensor, group: Tensor | None) -> Tensor:
        return hcl(z1, z2, temperature=self.temperature, beta=self.tilt(), tau_plus=self.tau_plus, group=group)

    def tilt(self) -> float:
        """Beta at the present step."""
        if not self.anneal:
            return self.beta
        fallen = min(int(self.clock.progress * (self.anneal + 1)), self.anneal)
        return self.beta * (1 - fallen / self.anneal)
