from __future__ import annotations

from torch import Tensor

from nearfar.losses.negatives import hcl
from nearfar.method import Encoder
from nearfar.methods.simclr import SimCLR
from nearfar.nn.heads import debiased_head
from nearfar.ranges import PositiveFloat, PositiveInt, ShareBelowOne


class Debiased(SimCLR):
    """Corrects the negative term of SimCLR's loss for the share of negatives that are of the anchor's own class.

    A random negative is of the anchor's class with probability tau_plus. The contribution of such false negatives is
    estimated from the positive and subtracted, down to the least that N negatives can give:

        loss_i = -log pos_i / (pos_i + Ng_i),    e_ij = exp(z_i . z_j / temperature)
        Ng_i = max((sum_j e_ij - tau_plus N pos_i) / (1 - tau_plus), N exp(-1 / temperature))

    Use it when there are few classes, so that many negatives are false; with a thousand classes there is little to
    correct. It costs what SimCLR costs.
    Note: One positive estimates the expectation over positives, as in the released code; the paper allows several.

    Args:
        dim: Width of the embedding.
        hidden: Width of the projector's hidden layer.
        temperature: Divides the similarities; 0.5 in the paper.
        tau_plus: Probability that a negative is of the anchor's class: 1 / classes if they are balanced; 0 is SimCLR's
            loss.

    Chuang et al. 2020, "Debiased Contrastive Learning", arXiv 2007.00224.
    """

    title = "Debiased Contrastive Learning (Chuang et al. 2020)"
    family = "negative weighting and selection"

    def __init__(
        self,
        encoder: Encoder,
        *,
        dim: PositiveInt = 128,
        hidden: PositiveInt = 512,
        temperature: PositiveFloat = 0.5,
        tau_plus: ShareBelowOne = 0.1,
    ) -> None:
        super().__init__(encoder, temperature=temperature, projector=debiased_head(encoder.dim, hidden=hidden, out=dim))
        self.tau_plus = tau_plus

    def loss(self, z1: Tensor, z2: Tensor, group: Tensor | None) -> Tensor:
        return hcl(z1, z2, temperature=self.temperature, beta=0.0, tau_plus=self.tau_plus, group=group)
