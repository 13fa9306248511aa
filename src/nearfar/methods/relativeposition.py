from __future__ import annotations

import math

import torch
from torch import Tensor

from nearfar.batch import Batch
from nearfar.losses.prediction import classify, solved
from nearfar.method import Encoder, Method, Step
from nearfar.nn.heads import mlp
from nearfar.ops.patches import cut, drawn, each_patch
from nearfar.ranges import NonNegativeInt, PositiveInt, PositiveShare

NEIGHBORS = (0, 1, 2, 3, 5, 6, 7, 8)
"""The cells of a 3 x 3 grid about the middle one, in reading order: the class of a pair is a place in this list."""


class RelativePosition(Method):
    """Predicts on which of eight sides of a patch another patch of the same image lies.

    Both patches pass through one encoder, and a head sees the pair:

        L = mean over the eight neighbors p_k of a center p of  -log softmax(head[f(p), f(p_k)])_k

    Use it when parts and their arrangement matter and batches must be small. Nine small passes cost up to twice
    SimCLR's two and give eight pairs an image, where the paper takes one. Only the first view is used.
    Note: Two shortcuts are closed. Against lines that continue from patch to patch: patches are smaller than their
    cells, at random places. Against the color fringes of lenses: all but one channel is dropped.

    Args:
        share: Side of a patch over the side of its cell; the paper's 2/3 leaves half a patch of gap and jitter on
            average.
        single: Keep one random channel of each patch; the others get their mean, in the paper faint noise.
        side: Side of the patches given to the encoder, in pixels; 0 keeps them as cut, but at least 16.
        hidden: Width of the head.

    Doersch et al. 2015, "Unsupervised Visual Representation Learning by Context Prediction", arXiv 1505.05192.
    """

    title = "Relative position: Learning by Context Prediction (Doersch et al. 2015)"
    family = "pretext tasks"
    needs_pixels = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        share: PositiveShare = 2 / 3,
        single: bool = True,
        side: NonNegativeInt = 0,
        hidden: PositiveInt = 512,
    ) -> None:
        super().__init__(encoder)
        self.head = mlp((2 * encoder.dim, hidden, len(NEIGHBORS)), norm=False, bias=True, last_bias=True)
        self.share, self.single, self.side = share, single, side

    def forward(self, batch: Batch) -> Step:
        patches = cut(batch.views[0], 3, share=self.share, side=self.side, generator=self.clock.generator())
        if self.single:
            patches = self.one_channel(patches)
        codes = each_patch(self.embed, patches)  # N x 9 x encoder.dim
        around = codes[:, NEIGHBORS]  # N x 8 x encoder.dim
        logits = self.head(torch.cat([codes[:, 4:5].expand_as(around), around], 2))  # N x 8 x 8
        target = torch.arange(len(NEIGHBORS), device=codes.device).expand(len(codes), -1)
        return Step(classify(logits, target), {"solved": solved(logits, target)})

    def one_channel(self, patches: Tensor) -> Tensor:
        n, p, channels = patches.shape[:3]
        kept = (channels * drawn(n, p, 1, generator=self.clock.generator(1))).long()
        keep = (kept == torch.arange(channels))[..., None, None].to(patches.device)  # N x P x C x 1 x 1
        return torch.where(keep, patches, patches.mean((3, 4), keepdim=True))

    def chance(self, batch: Batch) -> float:
        return math.log(len(NEIGHBORS))
