from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nearfar.batch import Batch, select
from nearfar.errors import UserError
from nearfar.losses.patchwise import info_nce_parts
from nearfar.method import Encoder, Method, Step, equal_rows
from nearfar.nn.causal import CausalConvolutions
from nearfar.ops.patches import cut, each_patch
from nearfar.ranges import AtLeastTwo, NonNegativeInt, PositiveInt, PositiveShare, ShareBelowOne


class CPC(Method):
    """Predicts later steps of a sequence from earlier ones, or lower patches of an image from upper ones.

    z is what the encoder makes of each step alone, and the context c what its GRU makes of all steps up to one. Of an
    image, overlapping patches pass through the encoder, and a masked convolution sums up the rows so far. For each
    distance k there is a linear map W_k, and j runs over all parts of the batch:

        L = mean over k and places r of  -p . z_(r+k) + log sum_j exp(p . z_j),    p = W_k c_r

    Use it for recordings (--encoder melgru or wavegru), which c represents; and for images where neighboring parts
    predict each other and color changes would harm: a grid of 7 with half overlap has the pixels of twelve images.
    Note: There is no released code; what the paper leaves open was decided here, and its numbers are not reproduced. As
    in the paper there is no temperature and nothing is normalized. Only the first view is used. To predict parts that
    overlap is trivial: see --skip. Batch norm in the encoder sees all parts together, which lets information leak.

    Args:
        grid: Patches along a side of an image.
        overlap: Overlap of neighboring patches, as a share of their side.
        share: Side of a patch's random crop over the patch's side; 60 of 64 px in the paper.
        side: Side of the patches given to the encoder, in pixels; 0 keeps them as cut, but at least 16.
        skip: Number of rows or steps directly behind that are not predicted.
        steps: Distance of the farthest row or step that is predicted; 12 steps of recordings in the paper.
        stretch: Steps of a sequence that are looked at, from a place drawn for each batch; the context reaches back to
            the beginning. 0 takes all, which is slow.
        width: Width of the masked convolution.
        layers: Layers of the masked convolution.
        norm: Apply layer norm to z, as in the later version (arXiv 1905.09272).

    van den Oord et al. 2018, "Representation Learning with Contrastive Predictive Coding", arXiv 1807.03748.
    """

    title = "CPC: Contrastive Predictive Coding (van den Oord et al. 2018)"
    family = "in-batch negatives"
    needs_pixels = True
    takes_steps = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        grid: AtLeastTwo = 7,
        overlap: ShareBelowOne = 0.5,
        share: PositiveShare = 0.94,
        side: NonNegativeInt = 0,
        skip: NonNegativeInt = 1,
        steps: PositiveInt = 5,
        stretch: NonNegativeInt = 24,
        width: PositiveInt = 256,
        layers: PositiveInt = 3,
        norm: bool = False,
    ) -> None:
        super().__init__(encoder)
        self.sequential = encoder.sequential
        self.steps = range(skip + 1, (steps if self.sequential else min(steps, grid - 1)) + 1)
        if not self.steps:
            raise UserError(f"nothing is left to predict from {skip + 1} to {self.steps.stop - 1} behind: lower --skip")
        if self.sequential:
            dim, width = (part.dim for part in encoder.steps())
        else:
            dim, self.context = encoder.dim, CausalConvolutions(encoder.dim, width, layers)
        self.norm = nn.LayerNorm(dim, elementwise_affine=False) if norm else nn.Identity()
        self.maps = nn.ModuleList(nn.Linear(width, dim, bias=False) for _ in self.steps)
        for w in self.maps.parameters():
            nn.init.normal_(w, std=(width * dim) ** -0.5)  # scores of the size of 1
        self.grid, self.overlap, self.share, self.side, self.stretch = grid, overlap, share, side, stretch

    def forward(self, batch: Batch) -> Step:
        z, c = self.sequence(batch.views[0]) if self.sequential else self.patches(batch.views[0])
        place = torch.arange(z.shape[:3].numel(), device=z.device).view(z.shape[:3])
        pairs = list(zip(self.steps, self.maps, strict=True))
        p = torch.cat([w(c[:, :-k]).flatten(1, 2) for k, w in pairs], 1)  # N x R x dim
        positive = torch.cat([place[:, k:].flatten(1) for k, _ in pairs], 1)  # N x R
        return Step(info_nce_parts(p.flatten(0, 1), z.flatten(0, 2), positive.flatten(), group=batch.group))

    def patches(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """What patches hold, and the context of each: N x grid x grid x dim, and x width."""
        g, generator = self.grid, self.clock.generator()
        patches = cut(view, g, overlap=self.overlap, share=self.share, side=self.side, generator=generator)
        z = self.norm(each_patch(self.embed, patches)).unflatten(1, (g, g))
        return z, self.context(z.movedim(3, 1)).movedim(1, 3)

    def sequence(self, view: Any) -> tuple[Tensor, Tensor]:
        """What steps hold, and the context of each: N x T x 1 x dim, and x width."""
        local, context = self.encoder.steps()
        z = self.norm(self.embed(view, local))  # N x all steps x dim
        c = self.embed(z, context)
        if self.representations is not None:
            self.representations.append(torch.cat([c.mean(1), c.amax(1)], 1).detach())
        count = min(z.shape[1], self.stretch or z.shape[1])
        if count <= self.steps[-1]:
            raise UserError(
                f"{count} of the {z.shape[1]} steps of a view are looked at, and the farthest predicted is "
                f"{self.steps[-1]} behind: give more --seconds, a longer --stretch or fewer --steps"
            )
        first = int(torch.randint(z.shape[1] - count + 1, (), generator=self.clock.generator()))
        return z[:, first : first + count, None], c[:, first : first + count, None]

    def chance(self, batch: Batch) -> Tensor:
        parts = self.grid**2
        if self.sequential:
            parts = self.encoder.steps()[0](select(batch.views[0], torch.tensor([0]))).shape[1]
            parts = min(parts, self.stretch or parts)
        own = parts * torch.arange(len(batch), device=batch.index.device)
        return info_nce_parts(equal_rows(batch), equal_rows(batch).repeat_interleave(parts, 0), own, group=batch.group)
