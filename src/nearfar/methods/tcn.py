from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from nearfar.batch import Batch
from nearfar.distributed import normalize, share
from nearfar.losses.patchwise import info_nce_parts
from nearfar.losses.temporal import time_contrast
from nearfar.method import Encoder, Method, Step, equal_rows
from nearfar.nn.heads import mlp
from nearfar.ranges import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt


class TCN(Method):
    """Brings frames of one moment together, whichever camera took them, and frames of other moments apart.

    Each frame of a clip is embedded alone. With d the squared distance, a and p the frames of one moment that two
    cameras took, and n the nearest frame of another moment that is farther from a than p (or the farthest, where none
    is),

        L = mean over a, p of  max(0, margin + d_ap - d_an)

    Use it where what happens matters and who looks on does not: to align videos, or to read the state of a task. It
    takes `--views tcn`, and a list of videos with columns sequence, camera and path. A step costs what SimCLR costs on
    as many frames. The published network ends in a spatial soft-argmax: a network of images with `--pooling
    softargmax`. With one camera, frames that are near in time are positives too, by `--near 1 --far 2`.
    Note: Frames follow each other at the stride of the clips, and are not drawn at random from a window. A pair for
    which the batch has no negative counts for nothing. Other videos of a sequence, at other moments, are no negatives.

    Args:
        dim: Width of the embedding.
        loss: "triplet" on unit rows, or "npairs": a softmax over all frames of the other view, on rows of any length.
        near: Frames of a clip that a positive is away at most, for triplets.
        far: Frames of a clip that a negative is away more than, for triplets; those between are neither.
        margin: The margin of the triplets.
        penalty: Weight of the squared lengths of rows, for npairs.
        hidden: Width of the layer before the embedding; 0 for none.

    Sermanet et al. 2018, "Time-Contrastive Networks: Self-Supervised Learning from Video", arXiv 1704.06888.
    """

    title = "TCN: Time-Contrastive Networks (Sermanet et al. 2018)"
    family = "in-batch negatives"
    needs_frames = True
    fewest_views = most_views = 2

    def __init__(
        self,
        encoder: Encoder,
        *,
        dim: PositiveInt = 32,
        loss: Literal["triplet", "npairs"] = "triplet",
        near: NonNegativeInt = 0,
        far: NonNegativeInt = 0,
        margin: PositiveFloat = 0.2,
        penalty: NonNegativeFloat = 0.001,
        hidden: NonNegativeInt = 2048,
    ) -> None:
        super().__init__(encoder)
        layers = [hidden] if hidden else []
        self.projector = mlp((encoder.dim, *layers, dim), norm=False, bias=True, last_bias=True)
        self.pairs, self.near, self.far, self.penalty = loss == "npairs", near, far, penalty
        self.margin = None if self.pairs else margin

    def forward(self, batch: Batch) -> Step:
        v1, v2 = batch.views
        alone = [view.flatten(0, 1)[:, None] for view in (v1, v2)]  # NT x 1 x C x H x W
        z = self.projector(torch.cat(self.embed_all(alone)))
        return Step(self.loss(*z.unflatten(0, (2, *v1.shape[:2])), batch.group))  # pyright: ignore[reportCallIssue]

    def loss(self, a: Tensor, p: Tensor, group: Tensor | None) -> Tensor:
        """a, p: the frames of the two views, N x T x dim."""
        if self.margin is not None:
            units = [normalize(z.flatten(0, 1)).view_as(z) for z in (a, p)]
            return time_contrast(units, margin=self.margin, near=self.near, far=self.far, group=group)
        a, p = a.flatten(0, 1), p.flatten(0, 1)
        length = (a.square().sum(1) + p.square().sum(1)) / 2
        positive = torch.arange(len(a), device=a.device)
        return info_nce_parts(a, p, positive, group=group) + self.penalty * share(length)

    def chance(self, batch: Batch) -> Tensor | None:
        same = equal_rows(batch)[:, None].expand(-1, batch.views[0].shape[1], -1)
        return None if self.pairs else self.loss(same, same, batch.group)
