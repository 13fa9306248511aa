from __future__ import annotations

from functools import partial
from typing import Literal

from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.errors import UserError
from nearfar.losses.epsilon import epsilon_supcon, sup_info_nce, sup_info_nce_in
from nearfar.losses.fairness import fairkl, fairkl_released
from nearfar.losses.supervised import share_with_positive
from nearfar.method import Encoder, Method, Step, equal_rows
from nearfar.nn.heads import supcon_head
from nearfar.ranges import NonNegativeFloat, PositiveFloat, PositiveInt

LOSSES = {"out": sup_info_nce, "in": sup_info_nce_in, "supcon": epsilon_supcon}
PENALTIES = {"kl": fairkl, "released": fairkl_released}


class SupInfoNCE(Method):
    """Separates positives from negatives by a margin on the logits, and can penalize a known bias such as the scanner.

    In SupCon the positives of an anchor compete with each other. Here a positive competes with negatives only, up to a
    margin epsilon. FairKL is a penalty if pairs of one class (or of two) are more similar when they share a bias, given
    by the column `attribute` of the labels table. KL is that of normal distributions of z . z over the pairs of the
    batch:

        loss_i = mean_p [ -s_ip + log(exp(s_ip - epsilon) + sum_n exp(s_in)) ],    s = z . z / temperature
        loss   = mean_i loss_i + fairkl [ KL(aligned || conflicting | one class) + KL(... | two classes) ]

    Use it when all classes have labels, and above all when something recorded beside the class (scanner, background)
    correlates with it in training only. It costs what SimCLR costs, and twice more over the pairs of a batch.
    Note: The margin is in logits; in cosines it is epsilon x temperature. FairKL uses the first view, as in the
    released code; only "released" counts rows paired with themselves. A row without label or attribute takes no part in
    FairKL. The contrastive loss has weight 1, a flag in the released code.

    Args:
        dim: Width of the embedding.
        head: Projector: "mlp", or "none" (the authors' against a bias: the penalty acts on the representation itself).
        temperature: Divides the similarities; 0.1 in the paper.
        epsilon: Margin on the logits; 0 to 0.5 in the paper.
        form: Positives in the denominator: "out" (the one pulled), "in" (their mean, the sum over positives being
            inside the logarithm) or "supcon" (all, each times exp(-epsilon)).
        base_temperature: Scale the loss by temperature over this; 0.07 in the released code.
        fairkl: Weight of the FairKL penalty; above 0 it needs attributes.
        penalty: "kl" (the paper) or "released": squared differences of means and deviations, a pull of conflicting
            pairs of one class and a push of aligned pairs of two.
        deviations: Whether the penalty compares standard deviations as well as means.

    Barbano et al. 2023, "Unbiased Supervised Contrastive Learning", arXiv 2211.05568.
    """

    title = "SupInfoNCE and FairKL: Unbiased Supervised Contrastive Learning (Barbano et al. 2023)"
    family = "supervised"
    needs_labels = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        dim: PositiveInt = 128,
        head: Literal["mlp", "none"] = "mlp",
        temperature: PositiveFloat = 0.1,
        epsilon: NonNegativeFloat = 0.25,
        form: Literal["out", "in", "supcon"] = "out",
        base_temperature: PositiveFloat | None = None,
        fairkl: NonNegativeFloat = 0.0,
        penalty: Literal["kl", "released"] = "kl",
        deviations: bool = True,
    ) -> None:
        super().__init__(encoder)
        self.projector = supcon_head(encoder.dim, out=dim) if head == "mlp" else nn.Identity()
        self.temperature, self.epsilon, self.base_temperature = temperature, epsilon, base_temperature
        self.form, self.fairkl = form, fairkl
        self.penalty = partial(PENALTIES[penalty], deviations=deviations)

    def forward(self, batch: Batch) -> Step:
        z = self.project_all(batch.views)  # V of N x dim
        loss, log = self.contrasted(z, batch), {"with_positive": share_with_positive(batch.label, len(z))}
        if not self.fairkl:
            return Step(loss, log)
        bias = self.bias(z[0], batch)
        return Step(loss + self.fairkl * bias, log | {"fairkl": bias.detach()})

    def contrasted(self, z: list[Tensor], batch: Batch) -> Tensor:
        return LOSSES[self.form](
            z,
            batch.label,
            temperature=self.temperature,
            epsilon=self.epsilon,
            base_temperature=self.base_temperature,
            group=batch.group,
        )

    def bias(self, z: Tensor, batch: Batch) -> Tensor:
        if batch.attribute is None:
            raise UserError(
                f"--fairkl {self.fairkl:g} wants to know the bias of the samples, and they have no attribute: give the "
                "labels table a column `attribute` that names it, or leave --fairkl at 0"
            )
        return self.penalty(z, batch.label, batch.attribute, group=batch.group)

    def chance(self, batch: Batch) -> Tensor:
        z = [equal_rows(batch)] * len(batch.views)
        loss = self.contrasted(z, batch)
        return loss + self.fairkl * self.bias(z[0], batch) if self.fairkl else loss
