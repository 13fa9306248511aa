from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nearfar.batch import Batch
from nearfar.losses.patchwise import info_nce_parts
from nearfar.method import Encoder, Method, Step
from nearfar.ops.patches import cut, each_patch


class Rows(nn.Module):
    """A context of each place of a grid from its own row and those above: N x dim x G x G -> N x width x G x G.

    Masked convolutions as in PixelCNN, but that a whole row is seen at once: what is predicted are rows below.
    """

    def __init__(self, dim: int, width: int, layers: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(dim, width, 1)
        self.layers = nn.ModuleList(nn.Conv2d(width, width, (2, 3)) for _ in range(layers))

    def forward(self, z: Tensor) -> Tensor:
        c = self.first(z)
        for layer in self.layers:
            c = c + layer(F.pad(c.relu(), (1, 1, 1, 0)))  # nothing from below
        return c


class CPC(Method):
    """From the upper rows of an image's patches, each patch some rows below is found among all patches of the batch.

    Patches overlap and pass one network apart: z. A masked convolution sums up the rows so far: c. For each distance k
    there is a linear map, and

        L = mean over k and places of  -p . z_(r+k) + log sum_j exp(p . z_j),    p = W_k c_r

    over all patches j of all samples, those of its own image too, which are the hard ones. No temperature, and
    nothing is normalized, as in the paper.

    Use it where what is near in an image, or in time, tells of the rest, and where views that change colors would
    harm. Patches cost: with a grid of 7 and half overlap twelve images' worth of pixels for each, SimCLR has two.
    Only the first view is used. Rows that overlap are not predicted, as that is trivial. The paper has layer norm in
    its later version (`norm`); batch norm in an encoder sees all patches together, which lets a little leak.

    grid: patches along a side.  overlap: of neighbors, as a share of their side.  share: side of the random crop of a
    patch over that of the patch (60 of 64 px).  side: of the patches as the encoder gets them, in pixels; 0 leaves them
    as they are cut, but never below 16.  skip, steps: rows below that are not predicted, and the farthest that is.
    width, layers: of the masked convolution.  norm: layer norm on z, as in the later version (arXiv 1905.09272).

    van den Oord et al. 2018, "Representation Learning with Contrastive Predictive Coding", arXiv 1807.03748. There is
    no released code: what the paper leaves open is decided here, and its numbers are not reproduced.
    """

    family = "instance"
    needs_pixels = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        grid: int = 7,
        overlap: float = 0.5,
        share: float = 0.94,
        side: int = 0,
        skip: int = 1,
        steps: int = 5,
        width: int = 256,
        layers: int = 3,
        norm: bool = False,
    ) -> None:
        super().__init__(encoder)
        self.norm = nn.LayerNorm(encoder.dim, elementwise_affine=False) if norm else nn.Identity()
        self.steps = range(skip + 1, min(steps, grid - 1) + 1)
        if not self.steps:
            raise ValueError(f"nothing is left to predict in {grid} rows from {skip + 1} to {steps} below")
        self.context = Rows(encoder.dim, width, layers)
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

    def chance(self, batch: int) -> float:
        return math.log(batch * self.grid**2)
