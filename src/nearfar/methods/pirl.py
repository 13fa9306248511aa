from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.distributed import normalize
from nearfar.method import Encoder, Step, frozen_statistics
from nearfar.methods.instdisc import InstDisc
from nearfar.ops.patches import PatchHead, cut, each_patch, orders, shuffle
from nearfar.ranges import NonNegativeInt, PositiveFloat, PositiveInt, PositiveShare, UnitInterval


class PIRL(InstDisc):
    """Matches an image, and also its shuffled patches, with the sample's stored embedding in a memory bank.

    The jigsaw is not solved: the representation shall be invariant to it. With v the embedding of one view, v_t that of
    another cut into patches, and m_i the bank's row of the sample, made of whole images alone,

        L = weight * NCE(v_t, m_i) + (1 - weight) * NCE(v, m_i)

    Use it when batches are small and parts matter as much as wholes. It costs about what SimCLR costs; negatives are an
    epoch old, and noise in the first.
    Note: Patches move no running statistics; the K negatives are drawn once for each term.

    Args:
        dim: Width of the embeddings, and of a patch's code.
        weight: Weight of the patches' term.
        temperature: Divides the similarities of both terms.
        negatives: Number K of bank rows drawn as negatives.
        contrast: "paper" (negatives are contrasted with the other negatives too; the sample's own row is none of them),
            "nce" (the released code: InstDisc's loss with Z from the patches of the first batch) or "infonce" (softmax
            over own and drawn rows). In the last two a draw may be the own row, as in the released code.
        momentum: Share of a bank row that stays when its sample is seen.
        first: Initial bank: "noise", or a "look" that embeds all samples.
        grid: Cells along a side of the image.
        share: Side of a patch over the side of its cell.
        side: Side of the patches given to the encoder, in pixels; 0 keeps them as cut, but at least 16.

    Misra and van der Maaten 2019, "Self-Supervised Learning of Pretext-Invariant Representations", arXiv 1912.01991.
    """

    title = "PIRL: Pretext-Invariant Representation Learning (Misra and van der Maaten 2019)"
    needs_pixels = True
    fewest_views = 2

    def __init__(
        self,
        encoder: Encoder,
        *,
        samples: int,
        dim: PositiveInt = 128,
        weight: UnitInterval = 0.5,
        temperature: PositiveFloat = 0.07,
        negatives: PositiveInt = 32000,
        contrast: Literal["paper", "nce", "infonce"] = "paper",
        momentum: UnitInterval = 0.5,
        first: Literal["noise", "look"] = "noise",
        grid: PositiveInt = 3,
        share: PositiveShare = 0.75,
        side: NonNegativeInt = 0,
    ) -> None:
        how: dict[str, Any] = {"contrast": contrast, "temperature": temperature, "negatives": negatives}
        super().__init__(encoder, samples=samples, dim=dim, momentum=momentum, first=first, proximal=0.0, **how)
        self.patches = PatchHead(nn.Linear(encoder.dim, dim), nn.Linear(grid**2 * dim, dim))
        self.weight, self.grid, self.share, self.side = weight, grid, share, side

    def forward(self, batch: Batch) -> Step:
        v = self.represent(batch.views[0])  # N x dim
        with frozen_statistics(self.encoder):
            v_t = self.shuffled(batch.views[1])  # N x dim
        generator = self.clock.generator
        first, log_z = self.contrast(v_t, batch, self.bank, self.log_z, generator(2))
        second, log_z = self.contrast(v, batch, self.bank, log_z, generator(3), estimate=False)
        return Step(self.weight * first + (1 - self.weight) * second, carry=([v.detach()], log_z, batch))

    def shuffled(self, view: Tensor) -> Tensor:
        generator = self.clock.generator()
        patches = cut(view, self.grid, share=self.share, side=self.side, generator=generator)
        order = orders(len(view), self.grid**2, generator=generator)
        return normalize(self.patches(each_patch(self.embed, shuffle(patches, order))))

    def pushes_at(self) -> float | None:
        return self.contrast.temperature

    def chance(self, batch: Batch) -> Tensor | None:
        first, second = (self.contrast.chance(batch, 1, self.bank, self.clock.generator(n)) for n in (2, 3))
        return None if first is None or second is None else self.weight * first + (1 - self.weight) * second
