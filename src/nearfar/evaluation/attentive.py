"""The attentive probe: a classifier that looks for what it needs among the tokens of a frozen encoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nearfar.evaluation.held import holdouts, standardized
from nearfar.ranges import PositiveInt, checked

DECAYS = (0.01, 0.3, 3.0)
"""Weight decays that are chosen from; of equal ones the last."""
EPOCHS, FEWEST, BATCH, RATE = 30, 200, 128, 5e-3
"""Epochs, steps at least, rows of a step and learning rate: alike for every fit, so that the decay alone is chosen."""


class MultiQuery(nn.Module):
    """Queries pool tokens, each its own part of their values, and a linear classifier reads what they found.

        a_m = softmax over tokens t of (q_m . x_t / sqrt(D))        z = [sum_t a_mt V_m x_t for each query m]

    where V_m makes D / M numbers of a token: "efficient probing" (Psomas et al. 2025, arXiv 2506.10178), the attention
    of CAE's attentive probe (arXiv 2202.03026) without the projections of queries and keys, which q can hold.
    Before the classifier stands a batch norm without weights, as in probes of masked autoencoders.

    queries: M, at most; the largest number that divides D.
    """

    @checked
    def __init__(self, dim: PositiveInt, classes: PositiveInt, queries: PositiveInt = 8) -> None:
        super().__init__()
        self.queries = next(m for m in range(min(queries, dim), 0, -1) if dim % m == 0)
        self.query = nn.Parameter(torch.randn(self.queries, dim) * 0.02)
        self.value = nn.Linear(dim, dim, bias=False)
        self.norm = nn.BatchNorm1d(dim, affine=False, eps=1e-6)
        self.classifier = nn.Linear(dim, classes)

    def attention(self, tokens: Tensor) -> Tensor:
        """How much each query takes of each token: N x T x D -> N x M x T, rows that sum to 1."""
        return (self.query @ tokens.mT / math.sqrt(tokens.shape[2])).softmax(2)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits: N x T x D -> N x classes."""
        pooled = self.attention(tokens) @ tokens  # N x M x D; the values of tokens come later, which is less to compute
        part = self.value.weight.unflatten(0, (self.queries, -1))  # M x D/M x D
        found = torch.einsum("nmk,mdk->nmd", pooled, part)
        return self.classifier(self.norm(found.flatten(1)))


def attentive_answers(
    x: Tensor,
    y: Tensor,
    test: Tensor,
    *,
    group: Tensor | None = None,
    decays: Sequence[float] = DECAYS,
    seed: int = 0,
) -> tuple[Tensor, dict[str, Any], list[str]]:
    """The class of each test row, N int64; what was chosen, and what is to be said.

    x: M x T x D, tokens, and y: M, int64, to learn from.  test: N x T x D.  group: M, rows that are on one side of what
    is held out.  The weight decay is chosen on a fifth of the training rows that is held out, and fitted anew on all.
    """
    held, notes, right = holdouts(y, group, seed)[:1], [], []
    if not held:
        notes.append("The attentive probe has the middle weight decay: there are too few labels to choose one.")
    for mask in held:
        right = [
            float((_fitted(x[~mask], y[~mask], x[mask], decay, seed) == y[mask]).float().mean()) for decay in decays
        ]
    best = max(range(len(right)), key=lambda k: (right[k], k)) if right else len(decays) // 2
    answer = _fitted(x, y, test, decays[best], seed)
    return answer, {"decay": decays[best], "held_out_accuracy": [100 * share for share in right]}, notes


def _fitted(x: Tensor, y: Tensor, test: Tensor, decay: float, seed: int) -> Tensor:
    """The answers of a probe after a fixed number of steps of AdamW under half a cosine."""
    if bool((y == y[0]).all()):  # nothing to tell apart, and a single row has no deviation
        return y[:1].expand(len(test))
    rows, mean, factor = standardized(x.flatten(0, 1), "each")
    tokens, generator = rows.view_as(x), torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        probe = MultiQuery(x.shape[2], int(y.max()) + 1).train()
    steps = max(FEWEST, EPOCHS * len(x) // BATCH)
    optimizer = torch.optim.AdamW(probe.parameters(), lr=RATE, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) < min(BATCH, len(x)):
            order = torch.randperm(len(x), generator=generator)
        part, order = order[:BATCH], order[BATCH:]
        optimizer.zero_grad()
        F.cross_entropy(probe(tokens[part]), y[part]).backward()
        optimizer.step()
        schedule.step()
    probe.eval()
    with torch.no_grad():
        return torch.cat([probe((part - mean) * factor).argmax(1) for part in test.split(1024)])
