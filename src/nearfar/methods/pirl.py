from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.distributed import normalize
from nearfar.method import Encoder, Step, frozen_statistics
from nearfar.methods.instdisc import InstDisc
from nearfar.ops.patches import PatchHead, cut, each_patch, orders, shuffle


class PIRL(InstDisc):
    """An image, and its shuffled patches, both find the stored embedding of their sample among those of random others.

    The jigsaw's tiles are not put in order: what they mean shall not depend on it. With v the embedding of one view,
    v_t that of another in patches, and m_i the bank's row of the sample, which is made of whole images alone,

        L = weight * NCE(v_t, m_i) + (1 - weight) * NCE(v, m_i)

    Use it where batches are small and parts matter as much as wholes. It costs about what SimCLR does; the bank is an
    epoch old, and noise in the first. Patches move no running statistics; the K negatives are drawn once a term.

    dim: width of the embeddings, and of a patch's code.  weight: of the patches' term.  temperature: of both.
    negatives: K.  contrast: "paper", each negative told from the others too; "nce", as released, InstDisc's with one
    constant Z from the patches of the first batch; "infonce", a softmax over own and drawn rows.  momentum: what is
    left of a row, when its sample is seen.  first: what the bank begins as, "noise" or a "look" at all samples.
    grid: cells along a side.  share: side of a patch over that of its cell.  side: of the patches as the encoder gets
    them, in pixels; 0 leaves them as they are cut, but never below 16.

    Misra and van der Maaten 2019, "Self-Supervised Learning of Pretext-Invariant Representations", arXiv 1912.01991.
    """

    needs_pixels = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        samples: int,
        dim: int = 128,
        weight: float = 0.5,
        temperature: float = 0.07,
        negatives: int = 32000,
        contrast: Literal["paper", "nce", "infonce"] = "paper",
        momentum: float = 0.5,
        first: Literal["noise", "look"] = "noise",
        grid: int = 3,
        share: float = 0.75,
        side: int = 0,
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
