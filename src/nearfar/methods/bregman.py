from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.distributed import gather, local, world
from nearfar.losses.bregman import bregman
from nearfar.losses.pairwise import nt_xent
from nearfar.method import Encoder, Step
from nearfar.methods.simclr import SimCLR
from nearfar.ranges import PositiveFloat, PositiveInt, ShareBelowOne


class Bregman(SimCLR):
    """Adds to SimCLR's loss a second one whose similarity is a learned Bregman divergence.

    K small networks f_k read the unit embedding z. The row belongs to the network with the largest output. The
    divergence of row i from row j is asymmetric, and 0 if both belong to the same network:

        D_ij = max_k f_k(z_i) - f_{k(j)}(z_i),  k(j) = argmax_k f_k(z_j)
        psi_ij = exp(-D_ij / (2 sigma^2))       loss = NT-Xent(z) + NT-Xent(psi)

    Use it when one cosine similarity does not suit all regions of the data. It costs what SimCLR costs.
    Note: If one network wins for all rows, the second loss is stuck; the log reports how many are `active`. To avoid
    that at the start, outputs begin without offset. The projector is SimCLR's. Both were decided here.

    Args:
        networks: Number K of small networks; 10 in the released model, 100 in its script.
        hidden: Width of each network.
        dropout: Dropout inside the networks during training.
        sigma: Scale of the divergence; psi lies in (0, 1], so the second softmax is never sharp.

    Rezaei et al. 2021, "Deep Bregman Divergence for Contrastive Learning of Visual Representations", arXiv 2109.07455.
    """

    title = "Deep Bregman Divergence for Contrastive Learning (Rezaei et al. 2021)"
    family = "in-batch negatives"

    def __init__(
        self,
        encoder: Encoder,
        *,
        networks: PositiveInt = 10,
        hidden: PositiveInt = 64,
        dropout: ShareBelowOne = 0.2,
        sigma: PositiveFloat = 0.9,
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

    def chance(self, batch: Batch) -> Tensor:
        return 2 * super().chance(batch)
