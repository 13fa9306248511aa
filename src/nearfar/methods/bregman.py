from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.distributed import gather, local, world
from nearfar.losses.bregman import bregman
from nearfar.losses.pairwise import nt_xent
from nearfar.method import Encoder, Step
from nearfar.methods.simclr import SimCLR


class Bregman(SimCLR):
    """Each view finds its other view twice, by its direction and by a divergence that small networks learn.

    K sub-networks f_k read the unit embedding z. The largest tells of what kind a row is, and how much less the one of
    another's kind says is a functional Bregman divergence: asymmetric, and 0 within a kind.

        D_ij = max_k f_k(z_i) - f_kind(j)(z_i)    psi_ij = exp(-D_ij / (2 sigma^2))    loss = NT-Xent(z) + NT-Xent(psi)

    Use it when samples fall into unlike regions that one cosine does not measure alike; it costs what SimCLR costs.
    If one sub-network comes to say most for all rows, the second loss stands still: the log counts those `active`.
    Decided here: the projector is SimCLR's; what a sub-network says begins without offset, else one would say most of
    all rows from the start.

    networks: sub-networks K; 10 in the released model, 100 in its script.  hidden: width of each.  dropout: inside
    them, in training.  sigma: scale of the divergence; psi lies in (0, 1], so the second softmax is never sharp.

    Rezaei et al. 2021, "Deep Bregman Divergence for Contrastive Learning of Visual Representations", arXiv 2109.07455.
    """

    family = "instance"

    def __init__(
        self,
        encoder: Encoder,
        *,
        networks: int = 10,
        hidden: int = 64,
        dropout: float = 0.2,
        sigma: float = 0.9,
        **simclr: Any,
    ) -> None:
        super().__init__(encoder, **simclr)
        self.first = nn.Linear(self.projector.dim, networks * hidden)
        self.second = nn.Conv1d(networks * hidden, networks, 1, groups=networks)  # one output for each
        nn.init.zeros_(self.second.bias)  # pyright: ignore[reportArgumentType]
        self.dropout, self.sigma = dropout, sigma

    def functionals(self, z: Tensor) -> Tensor:
        h = self.first(z).relu()  # 2N x networks * hidden
        if self.dropout and self.training:
            # For the global batch, a sample beside the other: a mask does not depend on the number of processes.
            drawn = torch.rand(world() * len(z) // 2, 2, h.shape[1], generator=self.clock.generator())
            keep = (local(drawn) >= self.dropout).transpose(0, 1).flatten(0, 1)
            h = h * keep.to(h) / (1 - self.dropout)
        return self.second(h[:, :, None])[:, :, 0]  # 2N x networks

    def forward(self, batch: Batch) -> Step:
        z = self.project_all(batch.views)  # 2 of N x dim
        f = self.functionals(torch.cat(z))
        how = {"temperature": self.temperature, "group": batch.group}
        loss = nt_xent(*z, **how) + bregman(*f.chunk(2), sigma=self.sigma, **how)
        return Step(loss, {"active": (torch.bincount(gather(f.argmax(1))) > 0).sum().float()})

    def chance(self, batch: int) -> float:
        return 2 * math.log(2 * batch - 1)
