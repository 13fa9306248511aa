"""What a conditional discriminator says of an image: whether it is real, and whether it is of its class."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from nearfar.distributed import normalize
from nearfar.losses.classification import cross_entropy
from nearfar.losses.conditional import conditional_contrastive, data_to_data
from nearfar.nn.heads import mlp
from nearfar.nn.spectral import spectral

Condition = Literal["2c", "d2dce", "projection", "classifier", "none"]


class Critic(nn.Module):
    """The heads of a discriminator, with spectral norm: the score of an image, and what it takes to ask for its class.

    width: of the representation.  dim: of the embedding that 2c and d2dce compare with a proxy for each class.
    projection (arXiv 1802.05637) adds h . e(y) to the score; classifier has a logit for each class (arXiv 1610.09585).
    temperature, margin: of the losses.
    """

    def __init__(
        self, width: int, classes: int, condition: Condition, *, dim: int, temperature: float, margin: float
    ) -> None:
        super().__init__()
        self.real = _head(width, 1)
        out = {"2c": dim, "d2dce": dim, "classifier": classes}.get(condition)
        self.projector = None if out is None else _head(width, out)
        proxy = {"2c": dim, "d2dce": dim, "projection": width}.get(condition)
        self.proxies = None if proxy is None else spectral(nn.Embedding(classes, proxy))
        self.condition, self.temperature, self.margin = condition, temperature, margin

    def forward(self, h: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """`score` and `asked`."""
        return self.score(h, label), self.asked(h, label)

    def score(self, h: Tensor, label: Tensor) -> Tensor:
        """How real images of these classes, or MISSING, are: N x width, N -> N."""
        score = self.real(h)[:, 0]
        if self.condition == "projection" and self.proxies is not None:
            score = score + torch.where(label >= 0, (h * self.proxies(label.clamp(min=0))).sum(1), 0)
        return score

    def asked(self, h: Tensor, label: Tensor) -> Tensor:
        """This rank's share of the loss by which images are to be of their classes; 0 where the score asks for it."""
        if self.projector is None:
            return h.new_zeros(())
        z = self.projector(h)
        if self.proxies is None:
            return cross_entropy(z, label)
        z, proxy = normalize(z), normalize(self.proxies(label.clamp(min=0)))
        if self.condition == "2c":
            return conditional_contrastive(z, proxy, label, temperature=self.temperature)
        return data_to_data(z, proxy, label, temperature=self.temperature, margin=self.margin)


def _head(before: int, after: int) -> nn.Module:
    head = mlp((before, after), norm=False, bias=True, last_bias=True)
    spectral(head[0])
    return head
