from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.losses.prediction import classify, solved
from nearfar.method import Encoder, Method, Step
from nearfar.ops.patches import drawn


class Rotation(Method):
    """The network tells by which of four quarter turns an image was rotated.

    To tell it must know what stands upright, which is to know objects and their parts; nothing is contrasted with
    other samples. With g_k the turn by k * 90 degrees counter-clockwise, an exact shuffle of pixels,

        L = mean over k of  -log softmax(W f(g_k(x)))_k        (RotNet)

    Use it when images have an upright and batches must be small: the loss is the same for a batch of any size. Four
    passes of the first view against SimCLR's two; round or symmetric things teach it nothing, and it learns to keep
    what views of contrast would throw away. Only the first view is used, and its crop, flip and colors come before
    the turn.

    all_turns: let every image pass in all four turns; else one is drawn for each, at a quarter of the cost, and
    batch norm sees other company.

    Gidaris et al. 2018, "Unsupervised Representation Learning by Predicting Image Rotations", arXiv 1803.07728.
    """

    family = "pretext"
    needs_pixels = True

    def __init__(self, encoder: Encoder, *, all_turns: bool = True) -> None:
        super().__init__(encoder)
        self.classifier = nn.Linear(encoder.dim, 4)
        self.all_turns = all_turns

    def forward(self, batch: Batch) -> Step:
        turned, k = self.turn(batch.views[0])
        logits = self.classifier(self.embed(turned))  # 4N x 4
        return Step(classify(logits, k), {"solved": solved(logits, k)})

    def turn(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """Turned images, and by how many quarters each: all N turned by 0, then all by 1, and so on."""
        turns = torch.stack([torch.rot90(view, k, (2, 3)) for k in range(4)])  # 4 x N x C x H x W
        n = torch.arange(len(view), device=view.device)
        if self.all_turns:
            return turns.flatten(0, 1), torch.arange(4, device=view.device).repeat_interleave(len(n))
        k = (4 * drawn(len(view), generator=self.clock.generator())).long().to(view.device)
        return turns[k, n], k

    def chance(self, batch: int) -> float:
        return math.log(4)
