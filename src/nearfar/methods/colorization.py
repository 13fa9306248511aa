from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nearfar.batch import Batch
from nearfar.errors import UserError
from nearfar.losses.prediction import solved, weighted_classes
from nearfar.method import Encoder, Look, Method, Step
from nearfar.ops.lab import lab_to_rgb, rgb_to_lab
from nearfar.ranges import PositiveInt, UnitInterval

STEP, SIGMA = 10.0, 5.0  # of the grid of colors, and of the Gaussian about a color, in units of Lab


@cache
def gamut() -> Tensor:
    """The cells of the ab plane, STEP wide, that hold a color of sRGB: Q x 2. 261 of them; the paper counts 313."""
    level = torch.linspace(0, 1, 64, dtype=torch.float64)
    ab = rgb_to_lab(torch.cartesian_prod(level, level, level).T[..., None])[1:, :, 0]
    return STEP * torch.unique((ab.T / STEP).round(), dim=0).float()


class Colorization(Method):
    """Predicts the colors of image regions from the grayscale image.

    The ab plane of Lab is divided into Q color classes. The target t_i of a region is spread over its nearest classes,
    and rare colors weigh more, by their frequency p_q in the training set:

        L = -mean_i w(t_i) sum_q t_iq log softmax(head[f(gray)]_i)_q,    w ~ 1 / ((1 - balance) p_q + balance / Q)

    Use it for color photographs with views that keep colors (`drawing`), in any batch size. It needs one pass, SimCLR
    two.
    Note: The encoder only sees gray. From its vector the head makes a coarse map; the paper's map has a quarter of the
    image's side. Constants are the paper's, not compared with the authors' code.

    Args:
        parts: Cells of the predicted map along a side.
        code: Width of a cell's code.
        balance: Weighting of rare colors: 1 weighs all colors alike, 0 by rarity alone; 1/2 in the paper.
        neighbors: Color classes that share a target.

    Zhang et al. 2016, "Colorful Image Colorization", arXiv 1603.08511.
    """

    title = "Colorization: Colorful Image Colorization (Zhang et al. 2016)"
    family = "pretext tasks"
    needs_pixels = True
    needs_color = True
    bins: Tensor  # Q x 2
    weight: Tensor  # Q

    def __init__(
        self,
        encoder: Encoder,
        *,
        channels: int = 3,
        parts: PositiveInt = 8,
        code: PositiveInt = 64,
        balance: UnitInterval = 0.5,
        neighbors: PositiveInt = 5,
    ) -> None:
        super().__init__(encoder)
        if channels != 3:
            raise UserError(f"colorization wants images in color, of 3 channels, got {channels}: take rotation")
        self.register_buffer("bins", gamut().clone(), persistent=False)
        self.register_buffer("weight", torch.ones(len(self.bins)))
        self.codes = nn.Sequential(nn.Linear(encoder.dim, parts**2 * code), nn.ReLU(), nn.Unflatten(1, (-1, code)))
        self.classifier = nn.Linear(code, len(self.bins))
        self.parts, self.balance, self.neighbors = parts, balance, neighbors

    def forward(self, batch: Batch) -> Step:
        gray, color = self.split(batch.views[0])
        target = self.target(color)  # N x parts**2 x Q
        logits = self.classifier(self.codes(self.embed(gray)))
        first = target.argmax(2)
        loss = weighted_classes(logits, target, self.weight[first])
        return Step(loss, {"solved": solved(logits, first)})

    def split(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """The grayscale input, N x 3 x H x W, and the ab channels to predict, N x 2 x H x W."""
        lab = rgb_to_lab(view)
        return lab_to_rgb(lab * lab.new_tensor([1, 0, 0])[:, None, None]), lab[:, 1:]

    def target(self, color: Tensor) -> Tensor:
        part = F.adaptive_avg_pool2d(color, self.parts).flatten(2).transpose(1, 2)  # N x parts**2 x 2
        distance = torch.cdist(part, self.bins.to(part).expand(len(part), -1, -1))
        near, which = distance.topk(self.neighbors, largest=False)
        return torch.zeros_like(distance).scatter_(2, which, (-(near**2) / (2 * SIGMA**2)).softmax(2))

    def before_epoch(self, look: Look) -> None:
        if self.clock.epoch == 0:
            p = look(lambda view: self.target(self.split(view)[1]).mean(1)).mean(0)  # Q
            self.weight.copy_(self.rebalance(p))

    def rebalance(self, p: Tensor) -> Tensor:
        """Weights of the color classes from their frequencies, of mean 1 over the training set: Q -> Q."""
        smooth = (-(torch.cdist(self.bins, self.bins) ** 2) / (2 * SIGMA**2)).softmax(0).to(p) @ p
        weight = 1 / ((1 - self.balance) * smooth + self.balance / len(p))
        return weight / (weight * p).sum()
