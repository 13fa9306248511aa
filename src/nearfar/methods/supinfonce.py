from __future__ import annotations

import math
from typing import Literal

from torch import nn

from nearfar.batch import Batch
from nearfar.losses.epsilon import epsilon_supcon, sup_info_nce, sup_info_nce_in
from nearfar.losses.fairness import fairkl, fairkl_released
from nearfar.losses.supervised import share_with_positive
from nearfar.method import Encoder, Method, Step
from nearfar.nn.heads import supcon_head

LOSSES = {"out": sup_info_nce, "in": sup_info_nce_in, "supcon": epsilon_supcon}


class SupInfoNCE(Method):
    """Each view is nearer to each view of its class than to all of other classes, by a margin, and not by a known bias.

    SupCon lets the positives of an anchor push each other away, as all are in its denominator; here a positive competes
    with the negatives alone, and is let off when it exceeds them by epsilon. FairKL adds a penalty where samples of one
    class (and of two) are more alike when they share a bias, which the column `attribute` of the labels table names:

        loss_i = mean_p [ -s_ip + log(exp(s_ip - epsilon) + sum_n exp(s_in)) ],    s = z . z / temperature
        loss   = mean_i loss_i + fairkl [ KL(aligned || conflicting | one class) + KL(... | two classes) ]

    with the KL of normal distributions of z . z over the pairs of the batch, of one and of different attributes.
    Use it when all classes have labels, and above all when something that is in the labels table but not in the class
    (a scanner, a background) goes along with it in training and will not later. It costs what SimCLR does, but for
    positive pairs and for FairKL, which are had one by one: the pairs of a batch twice over, in little memory.
    The margin is of logits: of cosines it is epsilon x temperature. FairKL is of the embedding of the first view, as
    in the released code; rows paired with themselves count in "released" alone. A row that lacks a label or an
    attribute takes no part in it. The weight of the contrastive loss, of which the released code has a flag, is 1.

    dim: width of the embedding.  head: "mlp", or "none", as the authors have it where a bias is to go: then the penalty
    is of the very representation that is used later, and dim of no use.  temperature: 0.1 in the paper.
    epsilon: the margin, 0 to 0.5 in the paper.
    form: which positives are in the denominator: "out", the one that is pulled; "in", their mean, with the sum over
    positives inside the logarithm; "supcon", all of them, each times exp(-epsilon).  base_temperature: scale the loss
    by temperature over this, as the released code does with 0.07.  fairkl: the weight of the penalty; above 0 it needs
    attributes.  penalty: "kl" as in the paper, or "released": differences of means and of deviations, squared, and a
    pull of conflicting pairs of one class and a push of aligned pairs of two.

    Barbano et al. 2023, "Unbiased Supervised Contrastive Learning", arXiv 2211.05568.
    """

    family = "labels"
    needs_labels = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        dim: int = 128,
        head: Literal["mlp", "none"] = "mlp",
        temperature: float = 0.1,
        epsilon: float = 0.25,
        form: Literal["out", "in", "supcon"] = "out",
        base_temperature: float | None = None,
        fairkl: float = 0.0,
        penalty: Literal["kl", "released"] = "kl",
    ) -> None:
        super().__init__(encoder)
        self.projector = supcon_head(encoder.dim, out=dim) if head == "mlp" else nn.Identity()
        self.temperature, self.epsilon, self.base_temperature = temperature, epsilon, base_temperature
        self.form, self.fairkl, self.penalty = form, fairkl, penalty

    def forward(self, batch: Batch) -> Step:
        z = self.project_all(batch.views)  # V of N x dim
        loss = LOSSES[self.form](
            z,
            batch.label,
            temperature=self.temperature,
            epsilon=self.epsilon,
            base_temperature=self.base_temperature,
            group=batch.group,
        )
        log = {"with_positive": share_with_positive(batch.label, len(z))}
        if not self.fairkl:
            return Step(loss, log)
        if batch.attribute is None:
            raise ValueError(
                f"--fairkl {self.fairkl:g} wants to know the bias of the samples, and they have no attribute: give the "
                "labels table a column `attribute` that names it, or leave --fairkl at 0"
            )
        bias = (fairkl if self.penalty == "kl" else fairkl_released)(
            z[0], batch.label, batch.attribute, group=batch.group
        )
        return Step(loss + self.fairkl * bias, log | {"fairkl": bias.detach()})

    def chance(self, batch: int) -> float:
        scale = 1 if self.base_temperature is None else self.temperature / self.base_temperature
        return scale * math.log(math.exp(-self.epsilon) + 2 * batch - 2)
