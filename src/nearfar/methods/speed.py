from __future__ import annotations

import torch
from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.errors import UserError
from nearfar.losses.prediction import classify, solved
from nearfar.method import Encoder, Method, Step
from nearfar.ops.frames import at_speed, moving
from nearfar.ops.patches import drawn
from nearfar.ranges import AtLeastTwo, NonNegativeFloat


class Speed(Method):
    """Predicts how fast a clip is played.

    To know what is too fast, the encoder must know what moves and how. With g_k the frames of a clip, each 2^k after
    the one before, and as many of them for all k,

        L = mean over k of  -log softmax(W f(g_k(x)))_k

    Use it on videos of one rate, in which motions have a usual speed, when batches must be small. It costs a pass of a
    short clip for each speed, of one view. Clips in which nothing moves count for nothing. Only the first view is used.
    Note: The clips of all speeds are cut from one view: of 8 frames and 2 speeds they have 4, of 3 speeds 2. The
    paper's contrastive terms are left out; `cvrl` is such.

    Args:
        speeds: Number of speeds: 1, 2, 4 and so on.
        all_speeds: Show every clip at all of them; otherwise at one at random, at less cost.
        least_motion: Mean difference of frames, 0 to 1, below which a clip counts as still.

    Wang et al. 2020, "Self-supervised Video Representation Learning by Pace Prediction", arXiv 2008.05861.
    """

    title = "Pace prediction: Self-supervised Video Representation Learning (Wang et al. 2020)"
    family = "pretext tasks"
    needs_frames = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        speeds: AtLeastTwo = 2,
        all_speeds: bool = True,
        least_motion: NonNegativeFloat = 0.005,
    ) -> None:
        super().__init__(encoder)
        self.classifier = nn.Linear(encoder.dim, speeds)
        self.speeds, self.all_speeds, self.least = speeds, all_speeds, least_motion

    def forward(self, batch: Batch) -> Step:
        played, target = self.play(batch.views[0])
        logits = self.classifier(self.embed(played))
        return Step(classify(logits, target), {"solved": solved(logits, target)})

    def play(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """Shorter clips, and by which power of two each is faster: all N at speed 1, then all at 2, and so on.

        Raises ValueError where the frames are too few for the fastest.
        """
        fastest, (n, frames) = 2 ** (self.speeds - 1), view.shape[:2]
        length = (frames - 1) // fastest + 1
        if length < 2:
            raise UserError(f"clips of {frames} frames are too short for a speed of {fastest}: more --clip-frames")
        place = drawn(n, self.speeds, generator=self.clock.generator())
        clips = torch.stack([at_speed(view, 2**k, length, place[:, k]) for k in range(self.speeds)])  # K x N x L x ...
        still = moving(view, torch.zeros(n, dtype=torch.int64, device=view.device), self.least)  # N, 0 or MISSING
        if self.all_speeds:
            k = torch.arange(self.speeds, device=view.device)[:, None].expand(-1, n)
            return clips.flatten(0, 1), torch.where(still < 0, still, k).flatten()
        k = (self.speeds * drawn(n, generator=self.clock.generator(1))).long().to(view.device)
        return clips[k, torch.arange(n, device=view.device)], torch.where(still < 0, still, k)

    def chance(self, batch: Batch) -> Tensor:
        target = self.play(batch.views[0])[1]
        return classify(torch.zeros(len(target), self.speeds, device=target.device), target)
