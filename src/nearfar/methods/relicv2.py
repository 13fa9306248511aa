from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from nearfar.batch import Batch, layout
from nearfar.distributed import gather, normalize, rank, world
from nearfar.losses.relic import relic
from nearfar.method import Encoder, Method, Step, equal_rows
from nearfar.nn.heads import byol_head
from nearfar.nn.momentum import MomentumPair
from nearfar.optim.schedules import cosine_ramp
from nearfar.ranges import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, UnitInterval


class ReLICv2(Method):
    """Contrasts crops with a momentum encoder's large crops, and makes the resulting distributions agree between crops.

    Online embeddings o of all crops are contrasted with the momentum embeddings t of the large ones. A divergence
    between the distributions that two crops give over the candidates makes them invariant:

        p_vw = softmax over candidates j of o_v . t_wj / temperature
        loss = mean over v, large w of  -log p_vw(itself) + beta KL(p_vw || p_wv),    p_wv without gradient

    Use it with large batches and many crops. With 4 large and 2 small crops it takes about four times SimCLR's time.
    Two views, `--negatives 0 --no-itself` are ReLIC.
    Note: There is no training code. Decided here: a small crop, which has no t, is compared with p_ww; candidates lie
    at random offsets in the batch, the same for all crops; temperature and beta. The paper's saliency maps are left
    out.

    Args:
        negatives: Other samples among the candidates; 0 for all.
        beta: Weight of the divergence.
        first: Order of the divergence: "own", KL(p_vw || p_wv), or "other", KL(p_wv || p_vw).
        itself: Contrast each large crop with its own momentum embedding too.
        dim: Width of the embedding.
        hidden: Width of the projector's hidden layer.
        temperature: Divides the similarities.
        momentum: Momentum of the target encoder at the start; it rises to 1 along a cosine.

    Tomasev et al. 2022, "Pushing the Limits of Self-Supervised ResNets", arXiv 2201.05119; Mitrovic et al. 2020,
    "Representation Learning via Invariant Causal Mechanisms", arXiv 2010.07922.
    """

    title = "ReLICv2: Representation Learning via Invariant Causal Mechanisms, v2 (Tomasev et al. 2022)"
    family = "in-batch negatives"

    def __init__(
        self,
        encoder: Encoder,
        *,
        negatives: NonNegativeInt = 10,
        beta: NonNegativeFloat = 1.0,
        first: Literal["own", "other"] = "own",
        itself: bool = True,
        dim: PositiveInt = 256,
        hidden: PositiveInt = 4096,
        temperature: PositiveFloat = 0.2,
        momentum: UnitInterval = 0.996,
    ) -> None:
        super().__init__(encoder)
        self.projector = byol_head(encoder.dim, hidden=hidden, out=dim)
        self.slow = MomentumPair(self.encoder, self.projector)
        self.negatives, self.itself, self.loss = negatives, itself, partial(relic, beta=beta, first=first)
        self.temperature, self.momentum = temperature, momentum

    def online(self, view: Any) -> Tensor:
        return normalize(self.projector(self.embed(view))) / self.temperature  # N x dim

    def target(self, view: Any) -> Tensor:
        return gather(normalize(self.slow(self, view)))  # WN x dim

    def candidates(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Columns of the candidates of this rank's rows, among all samples: itself, then the negatives; and which of
        them are of the row's group, and do not count. N x (1 + M) each."""
        n, device = len(batch), batch.index.device
        rows = world() * n
        apart = 1 + torch.randperm(rows - 1, generator=self.clock.generator())[: self.negatives or rows]
        own = rank() * n + torch.arange(n)
        columns = torch.cat([own[:, None], (own[:, None] + apart) % rows], 1).to(device)
        hidden = torch.zeros_like(columns, dtype=torch.bool)
        if batch.group is not None:
            group = gather(batch.group)[columns]
            hidden[:, 1:] = (group[:, 1:] == group[:, :1]) & (group[:, 1:] >= 0)
        return columns, hidden

    def forward(self, batch: Batch) -> Step:
        large = [view for view in batch.views if layout(view) == layout(batch.views[0])]  # they come first
        o, t = self.each(self.online, batch.views), self.each(self.target, large)
        columns, hidden = self.candidates(batch)
        # All products are made for a moment: the divergence compares candidate by candidate.
        s = [[(x @ y.T).gather(1, columns).masked_fill(hidden, -torch.inf) for y in t] for x in o]  # N x (1 + M) each
        pairs = [(v, w) for v in range(len(o)) for w in range(len(t)) if self.itself or v != w]
        losses = [self.loss(s[v][w], s[w][v if v < len(t) else w]) for v, w in pairs]
        return Step(torch.stack(losses).mean())

    def after_step(self, step: Step) -> None:
        self.slow.follow(self, cosine_ramp(self.momentum, self.clock.progress))

    def chance(self, batch: Batch) -> Tensor:
        columns, hidden = self.candidates(batch)
        logits = equal_rows(batch).expand_as(columns).masked_fill(hidden, -torch.inf)
        return self.loss(logits, logits)
