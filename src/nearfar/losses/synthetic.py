"""Negatives that are made, not found: mixtures of the hardest ones, for each query its own (MoCHi, arXiv 2010.01028).

Rows are of unit length. `groups`: of the queries and of the queue, int64, or MISSING: a key of the query's own group is
neither its negative nor a part of one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.contrast import Ids, far, products
from nearfar.distributed import share
from nearfar.losses.groups import equal_ids

BLOCK = 4096


@torch.no_grad()
def hardest(q: Tensor, queue: Tensor, count: int, groups: Ids | None = None) -> tuple[Tensor, Tensor]:
    """The `count` keys nearest to each query, nearest first: columns N x count, and how many of them count, N.

    q: N x D; queue: K x D, K >= count. A part of the queue is compared at a time.
    """
    best = torch.full((len(q), count), -math.inf, device=q.device)  # N x count
    where = torch.zeros(len(q), count, dtype=torch.long, device=q.device)
    for start in range(0, len(queue), BLOCK):
        part = slice(start, start + BLOCK)
        columns = torch.arange(start, min(start + BLOCK, len(queue)), device=q.device)
        block = products(q, queue[part])  # N x BLOCK
        if groups is not None:
            block = block.masked_fill(equal_ids(groups[0][:, None], groups[1][part]), -math.inf)
        best, order = torch.cat([best, block], 1).topk(count)
        where = torch.cat([where, columns.expand(len(q), -1)], 1).gather(1, order)
    return where, best.isfinite().sum(1)


@torch.no_grad()
def mixtures(q: Tensor, queue: Tensor, hard: Tensor, known: Tensor, pairs: Tensor, own: Tensor) -> Tensor:
    """Points between two hard keys, and between a hard key and the query: N x (S + T) x D, of unit length.

        h = a n_i + (1 - a) n_j,    h' = b q + (1 - b) n_j,  b < 1/2,    both put back on the sphere

    hard, known: from `hardest`; a query that knows no key gets zeros.  pairs: N x 3 x S, uniform in [0, 1): which n_i,
    which n_j, a.  own: N x 2 x T: which n_j, 2b.
    """

    def pick(u: Tensor) -> Tensor:  # N x S -> N x S x D
        at = (u * known[:, None]).long().clamp(max=hard.shape[1] - 1)
        return queue[hard.gather(1, at)]

    a, b = pairs[:, 2, :, None].to(q.dtype), own[:, 1, :, None].to(q.dtype) / 2
    between = a * pick(pairs[:, 0]) + (1 - a) * pick(pairs[:, 1])
    toward = b * q[:, None] + (1 - b) * pick(own[:, 0])
    return F.normalize(torch.cat([between, toward], 1), dim=2) * (known > 0)[:, None, None]


def info_nce_mixed(
    q: Tensor, k: Tensor, queue: Tensor, mixed: Tensor, *, temperature: float | Tensor, groups: Ids | None = None
) -> Tensor:
    """InfoNCE against a queue, and against further negatives that each query has to itself.

        loss_i = -s_i + log(exp(s_i) + sum_j exp(q_i . queue_j / temperature) + sum_j exp(q_i . mixed_ij / temperature))

    q, k: N x D; queue: K x D; mixed: N x S x D, where a row of zeros stands for none. Equal rows give log(1 + K + S).
    """
    q = q / temperature
    pull = (q * k).sum(1)
    # Each query has candidates of its own, so `far`, whose columns are everybody's, is no help: N x S.
    own = products(q, mixed).masked_fill(~mixed.any(2), -math.inf)
    near_and_own = torch.cat([pull[:, None], own], 1).logsumexp(1)  # N
    return share(torch.logaddexp(near_and_own, far(q, queue, exclude_same=groups)) - pull)
