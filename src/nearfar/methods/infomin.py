from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.distributed import normalize
from nearfar.errors import UserError
from nearfar.method import Encoder, Step, frozen_statistics
from nearfar.methods.moco import MoCo
from nearfar.nn.color_flow import ColorFlow
from nearfar.nn.heads import mlp
from nearfar.ops.patches import PatchHead, cut, orders, shuffle
from nearfar.ranges import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, PositiveShare


class InfoMin(MoCo):
    """Adds to MoCo a second query made of the image's shuffled patches, so that views share less information.

    Good views share what a task needs and no more. The query of shuffled patches q_t meets the keys of whole images and
    never enters the queue:

        L = (1 - beta) * InfoNCE(q, k) + beta * InfoNCE(q_t, k)

    Use it in place of MoCo when accuracy justifies a step that costs a third more than SimCLR's.
    Note: The released views are stronger than MoCo's by RandAugment, which is left out. The paper's other half,
    `learned` views, was never released and is unverified: an invertible color map g and the networks play against each
    other over the loss between channel 1 and channels 2 and 3 of g(x). Here one encoder sees both, other channels being
    a flat 0.5; g plays from the start instead of being frozen, gets gradients of queries only, and uses no labels.

    Args:
        dim: Width of the embedding.
        temperature: Divides the similarities; 0.15 in the released code.
        beta: Weight of the patches' term.
        grid: Cells along a side of the image.
        share: Side of a patch over the side of its cell.
        side: Side of the patches given to the encoder, in pixels; 0 keeps them as cut, but at least 16.
        learned: Learn the views; needs images of 3 channels.
        inner: Steps of the networks for each step of g.

    Tian et al. 2020, "What Makes for Good Views for Contrastive Learning?", arXiv 2005.10243.
    """

    title = "InfoMin: What Makes for Good Views for Contrastive Learning? (Tian et al. 2020)"
    family = "augmentations and views"
    needs_pixels = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        channels: int = 3,
        dim: PositiveInt = 128,
        temperature: PositiveFloat = 0.15,
        beta: NonNegativeFloat = 0.5,
        grid: PositiveInt = 3,
        share: PositiveShare = 0.75,
        side: NonNegativeInt = 0,
        learned: bool = False,
        inner: PositiveInt = 3,
        **moco: Any,
    ) -> None:
        if learned and channels != 3:
            raise UserError(f"learned views are of colors, and want images of 3 channels, not {channels}")
        super().__init__(encoder, dim=dim, temperature=temperature, **moco)
        each = mlp((encoder.dim, encoder.dim, dim), norm=False, bias=True, last_bias=True)
        self.patches = PatchHead(each, nn.Linear(grid**2 * dim, dim))
        self.flow = ColorFlow() if learned else None
        self.symmetric = self.symmetric or learned
        self.beta, self.grid, self.share, self.side, self.inner = beta, grid, share, side, inner

    def forward(self, batch: Batch) -> Step:
        if self.flow is not None:
            batch = replace(batch, views=self.split(*map(self.flow, batch.views)))
        step = super().forward(batch)
        keys, queries = step.carry[0], batch.views[:1] if len(step.carry[0]) == 1 else batch.views[::-1]
        with frozen_statistics(self):
            losses = [self.loss(self.shuffled(v), k, batch) for v, k in zip(queries, keys, strict=True)]
        return replace(step, loss=(1 - self.beta) * step.loss + self.beta * sum(losses) / len(losses))

    def split(self, first: Tensor, second: Tensor) -> list[Tensor]:
        """Channel 1 of one view, channels 2 and 3 of the other, at their places."""
        flat = torch.full_like(first, 0.5)
        return [torch.cat([first[:, :1], flat[:, 1:]], 1), torch.cat([flat[:, :1], second[:, 1:]], 1)]

    def shuffled(self, view: Tensor) -> Tensor:
        generator, shape = self.clock.generator(1), (len(view), self.grid**2)
        patches = cut(view, self.grid, share=self.share, side=self.side, generator=generator)
        patches = shuffle(patches, orders(*shape, generator=generator)).flatten(0, 1)
        codes = self.embed(patches, self.encoder)  # sample by sample, as split norms go by neighbors
        return normalize(self.patches(codes.unflatten(0, shape)))  # N x dim

    def before_step(self) -> None:
        for p in () if self.flow is None else self.flow.parameters():
            p.grad = None if p.grad is None or self.clock.step % self.inner else -p.grad
