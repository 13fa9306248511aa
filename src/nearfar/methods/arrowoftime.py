from __future__ import annotations

import torch
from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.losses.prediction import classify, solved
from nearfar.method import Encoder, Method, Step
from nearfar.ops.frames import moving
from nearfar.ranges import NonNegativeFloat


class ArrowOfTime(Method):
    """Predicts whether a clip runs forward or backward.

    Water falls and glass breaks, and the encoder must see what does. Each clip x is shown both ways,

        L = mean of  -log softmax(W f(x))_forward  and  -log softmax(W f(reversed x))_backward

    Use it on videos whose motions have a direction in time. It costs two passes of one view, as SimCLR does of two.
    What looks the same backward, such as a walk seen from the side or whatever moves evenly, teaches it nothing. Clips
    in which nothing moves count for nothing. Only the first view is used.
    Note: The paper takes optical flow, so that compression tells nothing; here the frames themselves are shown. Motion
    of the camera is not taken out.

    Args:
        least_motion: Mean difference of frames, 0 to 1, below which a clip counts as still.

    Wei et al. 2018, "Learning and Using the Arrow of Time", CVPR; the check of an order as two classes is that of Misra
    et al. 2016, "Shuffle and Learn", arXiv 1603.08561.
    """

    title = "Arrow of time: Learning and Using the Arrow of Time (Wei et al. 2018)"
    family = "pretext tasks"
    needs_frames = True

    def __init__(self, encoder: Encoder, *, least_motion: NonNegativeFloat = 0.005) -> None:
        super().__init__(encoder)
        self.classifier = nn.Linear(encoder.dim, 2)
        self.least = least_motion

    def forward(self, batch: Batch) -> Step:
        view, target = batch.views[0], self.target(batch.views[0])
        logits = self.classifier(self.embed(torch.cat([view, view.flip(1)])))  # 2N x 2
        return Step(classify(logits, target), {"solved": solved(logits, target)})

    def target(self, view: Tensor) -> Tensor:
        """0 for all clips that run forward, then 1 for all backward; MISSING where nothing moves: 2N."""
        forward = torch.zeros(len(view), dtype=torch.int64, device=view.device)
        return torch.cat([moving(view, forward + way, self.least) for way in (0, 1)])

    def chance(self, batch: Batch) -> Tensor:
        target = self.target(batch.views[0])
        return classify(torch.zeros(len(target), 2, device=target.device), target)
