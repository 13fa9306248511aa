"""Losses for queries that are mixtures of two samples. With W ranks, each returns its share of the mean.

A query i is made of its own sample, by a share lam_i, and of sample partner(i), counted over all ranks. Where its label
is its own place in the batch, a loss that is linear in labels becomes the mixture of two. Lee et al. 2020, arXiv
2010.08887.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.contrast import far, near
from nearfar.distributed import columns, gather, normalize, share
from nearfar.losses.groups import equal_ids


def mixed_info_nce(
    q: Tensor,
    k: Tensor,
    partner: Tensor,
    lam: Tensor,
    *,
    temperature: float | Tensor,
    queue: tuple[Tensor, Tensor] | None = None,
    group: Tensor | None = None,
) -> Tensor:
    """InfoNCE for mixtures: each query finds the keys of both its samples among those of the batch and of a queue.

        loss_i = -lam_i s_ii - (1 - lam_i) s_i,partner(i) + log sum_j exp(s_ij),    s_ij = q_i . k_j / temperature

    q, k: N x D, of unit length.  queue: further negatives, K x D, the same on all ranks, and their groups, K.
    group: N, or MISSING; samples of the group of either sample are no negatives. Equal rows give log(WN + K).
    """
    q, keys = q / temperature, gather(k)
    own = columns(q)
    pull = lam * near(q, keys, own) + (1 - lam) * near(q, keys, partner)
    keys = keys if queue is None else torch.cat([keys, queue[0]])
    if group is None:
        return share(far(q, keys) - pull)
    every = gather(group) if queue is None else torch.cat([gather(group), queue[1]])
    theirs = every[partner]

    def keep(i: Tensor, j: Tensor) -> Tensor:
        hidden = equal_ids(group[i], every[j]) | equal_ids(theirs[i], every[j])
        return ~hidden | (j == own[i]) | (j == partner[i])

    return share(far(q, keys, rule=keep) - pull)


def mixed_byol(p: Tensor, z: Tensor, partner: Tensor, lam: Tensor) -> Tensor:
    """BYOL for mixtures: the squared distances to the targets of both samples, weighted by their shares; 0 to 4.

        loss_i = 2 - 2 (lam_i p_i . z_i + (1 - lam_i) p_i . z_partner(i)),    p and z scaled to unit length

    p: N x D, predictions; z: N x D, targets, detached by the caller.
    """
    return share(2 - 2 * (normalize(p) * mixed_rows(normalize(z), partner, lam)).sum(1))


def mixed_rows(z: Tensor, partner: Tensor, lam: Tensor) -> Tensor:
    """lam_i z_i + (1 - lam_i) z_partner(i): N x D."""
    return lam[:, None] * z + (1 - lam[:, None]) * gather(z)[partner]
