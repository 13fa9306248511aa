from __future__ import annotations

from typing import Any

from torch import Tensor

from nearfar.losses.negatives import hcl
from nearfar.method import Encoder
from nearfar.methods.debiased import Debiased


class HCL(Debiased):
    """Each view finds its other view among all in the batch, of which those that look most like it weigh most.

    The negatives of debiased contrastive learning are re-weighted by exp(beta s), s being a similarity over the
    temperature, as if they had been drawn near the anchor. Nothing is drawn or sorted: it is all in the sum.

        Ng_i = max((R_i - tau_plus N pos_i) / (1 - tau_plus), N exp(-1 / temperature))
        R_i = N sum_j e_ij^(1 + beta) / sum_j e_ij^beta

    Use it when SimCLR soon finds most negatives easy, and with the correction, as the hardest negatives are those most
    likely to be false. The pairs are gone through twice, once for each sum; else it costs what SimCLR does. The
    gradient passes through the weights, as in the released code, and beta multiplies s, not the cosine, as in both.

    beta: weight of hard negatives; 0 is the debiased loss.  anneal: equal steps in which beta falls to 0 over training,
    9 for the authors (here at equal intervals, which is not verified); 0 keeps beta.

    Robinson et al. 2021, "Contrastive Learning with Hard Negative Samples", arXiv 2010.04592.
    """

    def __init__(self, encoder: Encoder, *, beta: float = 1.0, anneal: int = 0, **debiased: Any) -> None:
        super().__init__(encoder, **debiased)
        self.beta, self.anneal = beta, anneal

    def loss(self, z1: Tensor, z2: Tensor, group: Tensor | None) -> Tensor:
        return hcl(z1, z2, temperature=self.temperature, beta=self.tilt(), tau_plus=self.tau_plus, group=group)

    def tilt(self) -> float:
        """Beta as it is now."""
        if not self.anneal:
            return self.beta
        fallen = min(int(self.clock.progress * (self.anneal + 1)), self.anneal)
        return self.beta * (1 - fallen / self.anneal)
