from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.losses.prediction import classify, solved
from nearfar.method import Encoder, Method, Step
from nearfar.ops.patches import drawn


class Rotation(Method):
    """Predicts by which of four quarter turns an image was rotated.

    To know what is upright, the encoder must recognize objects and their parts. With g_k the exact rotation by k * 90
    degrees counter-clockwise,

        L = mean over k of  -log softmax(W f(g_k(x)))_k

    Use it when images have an upright position and batches must be small. It costs four passes of one view against
    SimCLR's two. Round or symmetric objects teach it nothing. It keeps information that contrastive views would remove.
    Note: Only the first view is used; its crop, flip and colors come before the rotation.

    Args:
        all_turns: Show every image in all four rotations; otherwise in one at random, at a quarter of the cost, with
            other batch statistics.

    Gidaris et al. 2018, "Unsupervised Representation Learning by Predicting Image Rotations", arXiv 1803.07728.
    """

    title = "RotNet: Predicting Image Rotations (Gidaris et al. 2018)"
    family = "pretext tasks"
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
        """Rotated images, and the quarter turns of each: all N by 0, then all by 1, and so on."""
        turns = torch.stack([torch.rot90(view, k, (2, 3)) for k in range(4)])  # 4 x N x C x H x W
        n = torch.arange(len(view), device=view.device)
        if self.all_turns:
            return turns.flatten(0, 1), torch.arange(4, device=view.device).repeat_interleave(len(n))
        k = (4 * drawn(len(view), generator=self.clock.generator())).long().to(view.device)
        return turns[k, n], k

    def chance(self, batch: Batch) -> float:
        return math.log(4)
