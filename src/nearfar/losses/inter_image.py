"""Contrast with other images of a bank: one of the same pseudo-label against chosen ones of others."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.contrast import far, products
from nearfar.distributed import share
from nearfar.losses.groups import equal_ids

Sampling = Literal["semi-hard", "random", "hard", "semi-easy"]
ROWS = 64
"""Queries whose products with the whole bank are held at a time."""


@torch.no_grad()
def draw_positive(label: Tensor, bank_label: Tensor, u: Tensor) -> Tensor:
    """A row of the bank with the label of each query: N, int64.

    label: N, each of them in bank_label (M).  u: N, uniform in [0, 1).
    """
    order = bank_label.argsort(stable=True)
    members = torch.bincount(bank_label)
    return order[(members.cumsum(0) - members)[label] + (u * members[label]).long()]


@torch.no_grad()
def draw_negatives(
    q: Tensor, bank: Tensor, same: tuple[Tensor, ...], u: Tensor, *, count: int, pool: int, sampling: Sampling
) -> Tensor:
    """At most `count` rows of the bank for each query, none of which is the same in any regard: N x M, bool.

    q: N x D; bank: M x D.  same: pairs of ids, N and M, one pair after the other; negative ids equal nothing.
    u: M, uniform: of the `pool` rows most like the query ("semi-hard"), least like it ("semi-easy") or of all
    ("random") those with the largest count; "hard" takes the rows most like it.
    """
    chosen = torch.zeros(len(q), len(bank), dtype=torch.bool, device=q.device)
    for rows in torch.arange(len(q), device=q.device).split(ROWS):
        alike = chosen[rows]
        for mine, theirs in zip(same[::2], same[1::2], strict=True):
            alike |= equal_ids(mine[rows, None], theirs)
        score = u.expand(len(rows), -1) if sampling == "random" else products(q[rows], bank)
        if sampling in ("semi-hard", "semi-easy"):
            within = (score if sampling == "semi-hard" else -score).topk(min(pool, len(bank))).indices
            score = torch.full_like(score, -math.inf).scatter(1, within, u[within])
        best = score.masked_fill(alike, -math.inf).topk(min(count, len(bank)))
        chosen[rows] = torch.zeros_like(alike).scatter(1, best.indices, best.values > -math.inf)
    return chosen


def margin_nce(
    q: Tensor, k: Tensor, bank: Tensor, chosen: Tensor, *, temperature: float, margin: float = 0.0, arc: bool = False
) -> Tensor:
    """InfoNCE among chosen rows of a bank, with a margin on the positive; a negative one makes the task easier.

        loss_i = -s_i + log(exp(s_i) + sum_{j chosen} exp(q_i . bank_j / temperature))
        s_i = (q_i . k_i - margin) / temperature        arc: cos(angle + margin) / temperature

    q, k: N x D; bank: M x D, the same on all ranks; chosen: N x M, bool. Without any, the loss of a row is 0. Where the
    angle with its margin leaves [0, pi], the cosine goes on in a straight line. Xie et al. 2020, arXiv 2008.11702.
    """
    cosine = (q * k).sum(1)
    pull = _arc(cosine, margin) if arc else cosine - margin
    push = far(q / temperature, bank, rule=lambda i, j: chosen[i, j])
    return share(F.softplus(push - pull / temperature))


def _arc(cosine: Tensor, margin: float) -> Tensor:
    sine = (1 - cosine.square()).clamp(min=1e-7).sqrt()  # its gradient is infinite at 0
    edge, end = (-math.cos(margin), -1.0) if margin > 0 else (math.cos(margin), 1.0)
    beyond = cosine < edge if margin > 0 else cosine > edge
    turned = cosine * math.cos(margin) - sine * math.sin(margin)
    return torch.where(beyond, end + cosine - edge, turned)
