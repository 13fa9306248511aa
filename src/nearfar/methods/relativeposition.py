from __future__ import annotations

import math

import torch
from torch import Tensor

from nearfar.batch import Batch
from nearfar.losses.prediction import classify, solved
from nearfar.method import Encoder, Method, Step
from nearfar.nn.heads import mlp
from nearfar.ops.patches import cut, drawn, each_patch

NEIGHBORS = (0, 1, 2, 3, 5, 6, 7, 8)
"""The cells of a 3 x 3 grid about the middle one, in reading order: the class of a pair is a place in this list."""


class RelativePosition(Method):
    """The network tells on which of eight sides of a patch another patch of the same image lay.

    To tell it must know the thing and its parts. Both patches pass one network, and a head sees the pair:

        L = mean over the eight neighbors p_k of a center p of  -log softmax(head[f(p), f(p_k)])_k

    Use it when what matters is in parts and their places, and batches must be small. Nine small passes, about one to
    two of SimCLR's two, give eight pairs an image; the paper takes one pair. Its shortcuts, and what is done: lines
    that go on from patch to patch (gaps, by patches smaller than their cells, at random places in them); the fringes
    that lenses leave on colors (all but one channel dropped). Only the first view is used.

    share: side of a patch over that of its cell; the rest is gap and jitter, half a patch on average with the paper's
    2/3.  single: keep one channel of each patch, at random; the others get their mean where the paper has faint noise.
    side: of the patches as the encoder gets them, in pixels; 0 leaves them as they are cut, but never below 16.
    hidden: width of the head.

    Doersch et al. 2015, "Unsupervised Visual Representation Learning by Context Prediction", arXiv 1505.05192.
    """

    family = "pretext"
    needs_pixels = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        share: float = 2 / 3,
        single: bool = True,
        side: int = 0,
        hidden: int = 512,
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

    def chance(self, batch: int) -> float:
        return math.log(len(NEIGHBORS))
