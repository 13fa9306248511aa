from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.errors import UserError
from nearfar.losses.prediction import classify, solved
from nearfar.method import Encoder, Method, Step
from nearfar.ops.frames import cut_in_time, moving
from nearfar.ops.patches import drawn, each_patch, permutations, shuffle
from nearfar.precision import network
from nearfar.ranges import NonNegativeFloat, PositiveInt, ShareBelowOne


class PairHead(nn.Module):
    """Logits of some parts in order, by what each two of them say together: N x P x dim -> N x classes."""

    def __init__(self, dim: int, parts: int, width: int, classes: int) -> None:
        super().__init__()
        self.pairs = list(combinations(range(parts), 2))
        self.each = nn.ModuleList(nn.Linear(2 * dim, width) for _ in self.pairs)
        self.whole = nn.Linear(len(self.pairs) * width, classes)

    @network
    def forward(self, codes: Tensor) -> Tensor:
        two = [torch.cat([codes[:, a], codes[:, b]], 1) for a, b in self.pairs]
        return self.whole(torch.cat([layer(row).relu() for layer, row in zip(self.each, two, strict=True)], 1))


class FrameSorting(Method):
    """Predicts in which order the parts of a clip were shown.

    To sort them, the encoder must know how things move. Of P parts x_1 ... x_P, each seen alone, one of the P! orders
    is drawn, and a head sees all their codes, two by two:

        L = -log softmax(head[f(x_order(1)), ..., f(x_order(P))])_order

    Use it on videos in which much moves, when batches must be small. P passes of a part cost less than one view of
    SimCLR's two. Clips in which nothing moves count for nothing. Only the first view is used.
    Note: With parts of one frame it is the order prediction of the paper; with three parts of several frames, and each
    order a class of its own, that of Xu et al. 2019. The paper's choice of frames by optical flow is not there.

    Args:
        parts: Number P of parts; of more than 5, 120 orders that are far from each other.
        gap: Share of the frames of a part that is left out before the next, so that they do not join.
        reversible: An order and its reverse are one class, as many motions look alike backward.
        least_motion: Mean difference of frames, 0 to 1, below which a clip counts as still.
        width: Width of the code of two parts.

    Lee et al. 2017, "Unsupervised Representation Learning by Sorting Sequences", arXiv 1708.01246; Xu et al. 2019,
    "Self-supervised Spatiotemporal Learning via Video Clip Order Prediction".
    """

    title = "OPN: Unsupervised Representation Learning by Sorting Sequences (Lee et al. 2017)"
    family = "pretext tasks"
    needs_frames = True
    permutations: Tensor  # P! x P
    classes: Tensor  # P!, the class of each

    def __init__(
        self,
        encoder: Encoder,
        *,
        parts: PositiveInt = 4,
        gap: ShareBelowOne = 0.0,
        reversible: bool = True,
        least_motion: NonNegativeFloat = 0.005,
        width: PositiveInt = 128,
    ) -> None:
        super().__init__(encoder)
        orders = permutations(parts, 120)
        names = [min(o, o[::-1]) if reversible else o for o in map(tuple, orders.tolist())]
        known = sorted(set(names))
        if len(known) < 2:
            raise UserError(f"{parts} parts have one order to be told: more --parts, or --no-both-ways with 2")
        self.register_buffer("permutations", orders.clone(), persistent=False)
        self.register_buffer("classes", torch.tensor([known.index(name) for name in names]), persistent=False)
        self.head = PairHead(encoder.dim, parts, width, len(known))
        self.count, self.parts, self.gap, self.least = len(known), parts, gap, least_motion

    def forward(self, batch: Batch) -> Step:
        view, (order, target) = batch.views[0], self.draw(batch)
        parts = shuffle(cut_in_time(view, self.parts, self.gap), self.permutations[order])
        logits = self.head(each_patch(self.embed, parts))  # N x classes
        return Step(classify(logits, target), {"solved": solved(logits, target)})

    def draw(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Which permutation each clip is shown in, and its class, or MISSING where nothing moves: N each."""
        number = (len(self.permutations) * drawn(len(batch), generator=self.clock.generator())).long()
        number = number.to(self.permutations.device)
        return number, moving(batch.views[0], self.classes[number], self.least)

    def chance(self, batch: Batch) -> Tensor:
        target = self.draw(batch)[1]
        return classify(torch.zeros(len(target), self.count, device=target.device), target)
