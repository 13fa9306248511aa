from __future__ import annotations

from typing import Literal

from torch import Tensor

from nearfar.batch import Batch, cat
from nearfar.distributed import normalize
from nearfar.losses.supervised import identity, share_with_positive
from nearfar.losses.universum import universum
from nearfar.method import Encoder, Step, equal_rows
from nearfar.methods.supcon import SupCon
from nearfar.ops.mixing import strangers
from nearfar.ops.mixing import universum as halves
from nearfar.ranges import PositiveFloat, PositiveInt, UnitInterval


class UniCon(SupCon):
    """Trains SupCon with mixtures of two classes, which belong to neither and are hard candidates.

    With v_j the embedding of (1 - lam) x_j + lam x_r, r any sample of another class, and p the rows of the class of i,

        loss_i = -mean_p z_i . v_p / T + log sum_{j != i} exp(z_i . v_j / T)

    Use it when batches are small. It costs twice what SupCon costs. A sample without a label is its own class.
    Note: As released, samples are compared with mixtures only; the paper's text may mean `--no-pull` (unverified).

    Args:
        pull: Contrast with mixtures only, as released, which draws rows between classes; else also with samples.
        mix: "mixup" averages two samples, "cutmix" pastes a box, always whole, of one image into the other.
        lam: Share of the other sample; far from 0.5 the mixture is no universum.
        dim: Width of the embedding.
        temperature: T, which divides the similarities.
        base_temperature: Scale the loss by temperature over this, as in SupCon.

    Han et al. 2022, "Universum-inspired Supervised Contrastive Learning", arXiv 2204.10695.
    """

    title = "UniCon: Universum-inspired Supervised Contrastive Learning (Han et al. 2022)"
    changes = "numbers"
    one_size = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        pull: bool = True,
        mix: Literal["mixup", "cutmix"] = "mixup",
        lam: UnitInterval = 0.5,
        dim: PositiveInt = 128,
        temperature: PositiveFloat = 0.1,
        base_temperature: PositiveFloat | None = None,
    ) -> None:
        super().__init__(encoder, dim=dim, temperature=temperature, base_temperature=base_temperature)
        self.pull, self.box, self.lam = pull, mix == "cutmix", lam
        self.changes = "images" if self.box else "numbers"

    def embedded(self, x: Tensor) -> Tensor:
        return normalize(self.projector(self.embed(x)))  # VN x dim

    def forward(self, batch: Batch) -> Step:
        views, n, made = batch.views, len(batch.views), self.mixed(batch)
        if made is None:
            return super().forward(batch)
        mixed, partner = made
        z, v = self.each(self.embedded, [cat(views), cat(mixed)])
        loss = self.against(list(z.chunk(n)), list(v.chunk(n)), partner, batch)
        return Step(loss, {"with_positive": share_with_positive(batch.label, n)})

    def mixed(self, batch: Batch) -> tuple[list[Tensor], Tensor] | None:
        """The mixtures of each view, and the partners; None where all are of one class."""
        return halves(batch.views, identity(batch.label), lam=self.lam, generator=self.clock.generator(), box=self.box)

    def against(self, z: list[Tensor], mixed: list[Tensor], partner: Tensor, batch: Batch) -> Tensor:
        return universum(
            z,
            mixed,
            batch.label,
            partner,
            temperature=self.temperature,
            pull=self.pull,
            base_temperature=self.base_temperature,
            group=batch.group,
        )

    def chance(self, batch: Batch) -> Tensor | None:
        partner = strangers(identity(batch.label), len(batch.views), generator=self.clock.generator())
        if partner is None:
            return super().chance(batch)
        z = [equal_rows(batch)] * len(batch.views)
        return self.against(z, z, partner.flatten(), batch)
