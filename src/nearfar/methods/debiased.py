from __future__ import annotations

from torch import Tensor

from nearfar.losses.negatives import hcl
from nearfar.method import Encoder
from nearfar.methods.simclr import SimCLR
from nearfar.nn.heads import debiased_head


class Debiased(SimCLR):
    """Each view finds its other view among all in the batch, less the share of these that is of its own class.

    A negative drawn at random is of the anchor's class with probability tau_plus. What such negatives add to the sum is
    estimated from the positive and taken away, though never below what N negatives can have:

        loss_i = -log pos_i / (pos_i + Ng_i),    e_ij = exp(z_i . z_j / temperature)
        Ng_i = max((sum_j e_ij - tau_plus N pos_i) / (1 - tau_plus), N exp(-1 / temperature))

    Use it when there are few classes, so that many negatives are false; with a thousand classes there is little to
    correct. It costs what SimCLR does. The one positive stands for the expectation over positives, as in the released
    code; the paper allows for several.

    dim, hidden: widths of the projector.  temperature: 0.5 in the paper.  tau_plus: share of negatives that are of the
    anchor's class, 1 / classes where these are balanced; 0 is SimCLR's loss.

    Chuang et al. 2020, "Debiased Contrastive Learning", arXiv 2007.00224.
    """

    family = "negatives"

    def __init__(
        self, encoder: Encoder, *, dim: int = 128, hidden: int = 512, temperature: float = 0.5, tau_plus: float = 0.1
    ) -> None:
        super().__init__(encoder, temperature=temperature, projector=debiased_head(encoder.dim, hidden=hidden, out=dim))
        self.tau_plus = tau_plus

    def loss(self, z1: Tensor, z2: Tensor, group: Tensor | None) -> Tensor:
        return hcl(z1, z2, temperature=self.temperature, beta=0.0, tau_plus=self.tau_plus, group=group)
