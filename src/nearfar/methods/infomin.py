from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.distributed import normalize
from nearfar.method import Encoder, Step, frozen_statistics
from nearfar.methods.moco import MoCo
from nearfar.nn.color_flow import ColorFlow
from nearfar.nn.heads import mlp
from nearfar.ops.patches import PatchHead, cut, orders, shuffle


class InfoMin(MoCo):
    """Each query, and the shuffled patches of its image, find the same key among a long queue of earlier keys.

    Good views share what a task needs and no more. Stronger views share less: to MoCo comes a query made of patches in
    a random order, q_t, which meets the keys of whole images; it never enters the queue.

        L = (1 - beta) * InfoNCE(q, k) + beta * InfoNCE(q_t, k)

    Use it as MoCo, where a longer training is paid by accuracy; a third of SimCLR's cost more. The released views are
    stronger than MoCo's by RandAugment, which is not here. The paper's other half is `learned`: an invertible map g of
    colors plays against the networks, which find the key of channels 2 and 3 of g(x) for its channel 1 and the other
    way round; g raises that loss, they lower it. That half was never released and is unverified: here one encoder sees
    both views, the other channels being a flat 0.5, g plays from the start instead of being frozen, it feels queries
    alone, and nothing is asked of labels.

    beta: weight of the patches.  temperature: 0.15 in the released code.  grid: cells along a side.  share: side of a
    patch over that of its cell.  side: of the patches as the encoder gets them, in pixels; 0 leaves them as they are
    cut, but never below 16.  learned: learn the views, for images of 3 channels.  inner: steps of the networks to
    one of g.

    Tian et al. 2020, "What Makes for Good Views for Contrastive Learning?", arXiv 2005.10243.
    """

    family = "views"
    needs_pixels = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        channels: int = 3,
        dim: int = 128,
        temperature: float = 0.15,
        beta: float = 0.5,
        grid: int = 3,
        share: float = 0.75,
        side: int = 0,
        learned: bool = False,
        inner: int = 3,
        **moco: Any,
    ) -> None:
        if learned and channels != 3:
            raise ValueError(f"learned views are of colors, and want images of 3 channels, not {channels}")
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
            found = [self.loss(self.shuffled(v), k, batch) for v, k in zip(queries, keys, strict=True)]
        return replace(step, loss=(1 - self.beta) * step.loss + self.beta * sum(found) / len(found))

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
