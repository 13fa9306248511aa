from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nearfar.batch import Batch
from nearfar.contrast import products
from nearfar.distributed import normalize
from nearfar.errors import UserError
from nearfar.losses.dense import same_cells
from nearfar.method import Encoder, Method, Step, frozen_statistics
from nearfar.nn.heads import mlp
from nearfar.nn.momentum import MomentumPair
from nearfar.ops.places import same_place
from nearfar.optim.schedules import cosine_ramp
from nearfar.ranges import PositiveFloat, PositiveInt, UnitInterval


class PixPro(Method):
    """Pulls together the cells of two views' last maps that show the same place of an image, without negatives.

    x: cells, projected, of one view, and y, each mixed with those of the same view that are like it; x': cells of the
    other view, from a momentum encoder; a pair (s, t) is in A if the middles of the cells are near in the image:

        y_s = sum_r max(cos(x_s, x_r), 0)^sharpness  g(x_r)
        A = {(s, t): |middle_s - middle_t| < threshold * diagonal of the larger cell}
        loss = sum over both directions of  -mean over A of cos(y_s, x'_t),    an image without pairs counts as 0

    Use it where the encoder is to tell what is where, as for detection and segmentation. It costs what BYOL does. Views
    must share a part of the image. Of small images, whose maps have 2 x 2 cells, it has not learned in 600 steps.
    Note: g is a linear layer and gives rows of unit length, as in the released code. Distances are measured in the true
    shape of the image, where that code squeezes it to a square. The branch for whole images is left out.

    Args:
        dim: Width of a projected cell.
        hidden: Width of the hidden layer of the projector, as in the released code.
        threshold: Distance, in diagonals of a cell, up to which two cells show the same place.
        sharpness: Exponent of the similarity by which cells are mixed: the higher, the fewer others.
        momentum: Momentum of the second encoder at the start; it rises to 1 along a cosine.

    Xie et al. 2021, "Propagate Yourself: Exploring Pixel-Level Consistency for Unsupervised Visual Representation
    Learning", arXiv 2011.10043.
    """

    title = "PixPro: Propagate Yourself, Pixel-Level Consistency (Xie et al. 2021)"
    family = "no negatives"
    needs_pixels = needs_maps = needs_places = True
    fewest_views = most_views = 2

    def __init__(
        self,
        encoder: Encoder,
        *,
        dim: PositiveInt = 256,
        hidden: PositiveInt = 4096,
        threshold: PositiveFloat = 0.7,
        sharpness: PositiveInt = 2,
        momentum: UnitInterval = 0.99,
    ) -> None:
        super().__init__(encoder)
        if _weights_behind_map(encoder):
            raise UserError("pixpro trains maps alone, and this encoder has weights behind them: use conv4 or a ResNet")
        self.projector = mlp((encoder.map_dim, hidden, dim), norm=True, bias=True, last_bias=True)
        self.transform = mlp((dim, dim), norm=False, bias=True, last_bias=True)
        self.slow, self.momentum = MomentumPair(self.encoder, self.projector), momentum
        self.threshold, self.sharpness = threshold, sharpness

    def predict(self, view: Any) -> Tensor:
        _, cells = self.embed_cells(view)
        x = self.projector(cells.flatten(0, 1))
        unit, g = (normalize(part).unflatten(0, cells.shape[:2]) for part in (x, self.transform(x)))  # N x S x dim
        weight = products(unit, unit).clamp(min=0) ** self.sharpness  # N x S x S
        return products(weight, g.mT)  # N x S x dim

    @torch.no_grad()
    def target(self, view: Any) -> Tensor:
        _, cells = self.embed_cells(view, self.slow.encoder)
        return self.slow.projector(cells.flatten(0, 1)).unflatten(0, cells.shape[:2])  # N x S x dim

    def forward(self, batch: Batch) -> Step:
        assert batch.places is not None
        y1, y2 = self.each(self.predict, batch.views)
        x1, x2 = self.each(self.target, batch.views)
        one, other = batch.places
        same = same_place(one, other, y1.shape[1], self.threshold)
        loss = same_cells(y1, x2, same) + same_cells(y2, x1, same.mT)
        return Step(loss, {"pairs": same.any(2).float().mean()})

    def after_step(self, step: Step) -> None:
        self.slow.follow(self, cosine_ramp(self.momentum, self.clock.progress))


def _weights_behind_map(encoder: Encoder) -> bool:
    """Whether some weights of an encoder have no part in its last map, as those of a convolution behind it: tried on
    noise. False where nobody knows an example. Raises ValueError where it has no maps."""
    try:
        view = encoder.example(2)
    except NotImplementedError:
        return False
    weights = [p for p in encoder.parameters() if p.requires_grad]
    with frozen_statistics(encoder), torch.enable_grad():
        _, maps = encoder.with_map(view)
        return any(g is None for g in torch.autograd.grad(maps.sum(), weights, allow_unused=True))
