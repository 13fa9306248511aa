from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nearfar.batch import Batch
from nearfar.errors import UserError
from nearfar.losses.patchwise import info_nce_parts
from nearfar.method import Encoder, Method, Step, equal_rows
from nearfar.ops.patches import cut, each_patch
from nearfar.precision import network
from nearfar.ranges import AtLeastTwo, NonNegativeInt, PositiveInt, PositiveShare, ShareBelowOne


class CausalConvolutions(nn.Module):
    """The context of each place of a grid, from its row and those above: N x dim x G x G -> N x width x G x G.

    Masked convolutions as in PixelCNN, except that a whole row is visible, as rows below are predicted.
    """

    def __init__(self, dim: int, width: int, layers: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(dim, width, 1)
        self.layers = nn.ModuleList(nn.Conv2d(width, width, (2, 3)) for _ in range(layers))

    @network
    def forward(self, z: Tensor) -> Tensor:
        c = self.first(z)
        for layer in self.layers:
            c = c + layer(F.pad(c.relu(), (1, 1, 1, 0)))  # nothing from below
        return c


class CPC(Method):
    """Predicts the patches some rows below from the upper rows of an image, against all patches of the batch.

    Overlapping patches pass through the encoder separately, giving z. A masked convolution sums up the rows so far into
    a context c. For each distance k there is a linear map W_k, and j runs over all patches of the batch:

        L = mean over k and places of  -p . z_(r+k) + log sum_j exp(p . z_j),    p = W_k c_r

    Use it where neighboring parts predict each other and color changes would harm. It costs more than SimCLR: a grid of
    7 with half overlap has the pixels of twelve images. Only the first view is used.
    Note: There is no released code; what the paper leaves open was decided here, and its numbers are not reproduced. As
    in the paper there is no temperature and nothing is normalized. Rows that overlap are not predicted, as that is
    trivial. Batch norm in the encoder sees all patches together, which lets some information leak.

    Args:
        grid: Patches along a side.
        overlap: Overlap of neighboring patches, as a share of their side.
        share: Side of a patch's random crop over the patch's side; 60 of 64 px in the paper.
        side: Side of the patches given to the encoder, in pixels; 0 keeps them as cut, but at least 16.
        skip: Number of rows directly below that are not predicted.
        steps: Distance of the farthest row that is predicted.
        width: Width of the masked convolution.
        layers: Layers of the masked convolution.
        norm: Apply layer norm to z, as in the later version (arXiv 1905.09272).

    van den Oord et al. 2018, "Representation Learning with Contrastive Predictive Coding", arXiv 1807.03748.
    """

    title = "CPC: Contrastive Predictive Coding (van den Oord et al. 2018)"
    family = "in-batch negatives"
    needs_pixels = True

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
        width: PositiveInt = 256,
        layers: PositiveInt = 3,
        norm: bool = False,
    ) -> None:
        super().__init__(encoder)
        self.norm = nn.LayerNorm(encoder.dim, elementwise_affine=False) if norm else nn.Identity()
        self.steps = range(skip + 1, min(steps, grid - 1) + 1)
        if not self.steps:
            raise UserError(f"nothing is left to predict in {grid} rows from {skip + 1} to {steps} below")
        self.context = CausalConvolutions(encoder.dim, width, layers)
        self.maps = nn.ModuleList(nn.Linear(width, encoder.dim, bias=False) for _ in self.steps)
        for w in self.maps.parameters():
            nn.init.normal_(w, std=(width * encoder.dim) ** -0.5)  # scores of the size of 1
        self.grid, self.overlap, self.share, self.side = grid, overlap, share, side

    def forward(self, batch: Batch) -> Step:
        g, generator = self.grid, self.clock.generator()
        patches = cut(batch.views[0], g, overlap=self.overlap, share=self.share, side=self.side, generator=generator)
        z = self.norm(each_patch(self.embed, patches))  # N x g**2 x dim
        place = torch.arange(z.shape[0] * g**2, device=z.device).view(-1, g, g)
        c = self.context(z.mT.unflatten(2, (g, g))).movedim(1, -1)  # N x g x g x width
        pairs = list(zip(self.steps, self.maps, strict=True))
        p = torch.cat([w(c[:, :-k]).flatten(1, 2) for k, w in pairs], 1).flatten(0, 1)  # R x dim
        positive = torch.cat([place[:, k:].flatten(1) for k, _ in pairs], 1).flatten()  # R
        return Step(info_nce_parts(p, z.flatten(0, 1), positive, group=batch.group))

    def chance(self, batch: Batch) -> Tensor:
        patches = equal_rows(batch).repeat_interleave(self.grid**2, 0)  # N grid**2 x 1
        own = self.grid**2 * torch.arange(len(batch), device=patches.device)
        return info_nce_parts(equal_rows(batch), patches, own, group=batch.group)
