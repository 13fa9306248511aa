from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nearfar.batch import Batch, to
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
    Note: There is no released code; what the paper leaves open was decided here. As there, nothing is normalized, and
    there is no temperature. Only the first view is used. Parts that overlap are too easy to predict: see --skip. Batch
    norm in the encoder sees all parts together, so that some information leaks.

    Args:
        grid: Patches along a side of an image.
        overlap: Overlap of neighboring patches, as a share of their side.
        share: Side of a patch's random crop over the patch's side; 60 of 64 px in the paper.
        side: Side of the patches given to the encoder, in pixels; 0 keeps them as cut, but at least 16.
        skip: Rows or steps directly behind that are not predicted.
        steps: Distance of the farthest row or step that is predicted; 12 steps of recordings in the paper.
        stretch: Steps of a sequence that are looked at, from a drawn place on; the context sees those before. 0 is all.
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
        self.sequential = getattr(encoder, "sequential", False)  # any module may stand for one
        if self.sequential:
            local, context = encoder.steps()
            dim, width = local.dim, context.dim
            count = local(to(encoder.example(1), next(encoder.parameters()).device)).shape[1]
            self.parts = far = min(count, stretch or count)
        else:
            self.context = CausalConvolutions(dim := encoder.dim, width, layers)
            self.parts, far = grid**2, grid
        self.steps = range(skip + 1, min(steps, far - 1) + 1)
        if not self.steps:
            raise UserError(f"nothing is left to predict in {far} rows or steps from {skip + 1} to {steps} behind")
        self.norm = nn.LayerNorm(dim, elementwise_affine=False) if norm else nn.Identity()
        self.maps = nn.ModuleList(nn.Linear(width, dim, bias=False) for _ in self.steps)
        for w in self.maps.parameters():
            nn.init.normal_(w, std=(width * dim) ** -0.5)  # scores of the size of 1
        self.grid, self.overlap, self.share, self.side = grid, overlap, share, side

    def forward(self, batch: Batch) -> Step:
        z, c = self.sequence(batch.views[0]) if self.sequential else self.patches(batch.views[0])
        place = torch.arange(z.shape[:3].numel(), device=z.device).view(z.shape[:3])
        p = torch.cat([w(c[:, :-k]).flatten(1, 2) for k, w in zip(self.steps, self.maps, strict=True)], 1)
        positive = torch.cat([place[:, k:].flatten(1) for k in self.steps], 1)  # N x R
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
        c = self.embed(z := self.norm(self.embed(view, local)), context)  # N x all steps x width
        (self.representations if self.representations is not None else []).append(c.mean(1).detach())
        first = int(torch.randint(z.shape[1] - self.parts + 1, (), generator=self.clock.generator()))
        return z[:, first : first + self.parts, None], c[:, first : first + self.parts, None]

    def chance(self, batch: Batch) -> Tensor:
        rows, own = equal_rows(batch), self.parts * torch.arange(len(batch), device=batch.index.device)
        return info_nce_parts(rows, rows.repeat_interleave(self.parts, 0), own, group=batch.group)
