"""A loss in which a learned center of each class stands beside the samples (PaCo, arXiv 2107.12028).

The logit of a class says how near an anchor is to its center. Centers and samples share one softmax, so that an anchor
of a rare class has a positive in any batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nearfar.contrast import far, near_mean
from nearfar.distributed import columns, gather, share, world
from nearfar.losses.groups import foreign, or_positive
from nearfar.losses.supervised import identity


def parametric(
    z: Tensor,
    logits: Tensor,
    label: Tensor,
    keys: Tensor,
    queue: tuple[Tensor, Tensor, Tensor],
    *,
    temperature: float | Tensor,
    alpha: float,
    beta: float = 1.0,
    gamma: float = 1.0,
    smoothing: float = 0.0,
    group: Tensor | None = None,
) -> Tensor:
    """Each anchor finds the center of its class, and with weight alpha the samples of it, among all of both.

        loss_i = log D_i - (beta b_iy + alpha sum_p s_ip) / (beta + alpha |P_i|)
        D_i = sum_c exp(b_ic) + gamma sum_{j != i} exp(s_ij),    s_ij = z_i . k_j / temperature

    z: VN x D, the anchors, views of N samples one after the other; logits: VN x C, their b, with the log of the shares
    of classes where these are uneven; label: N, int64, or MISSING.  keys: UN x D, views that are no anchors, U from 0.
    queue: K x D, and its labels and groups, K and K.  The k_j are the anchors and the keys of all ranks, and the queue;
    P_i are those of the anchor's class but itself.  smoothing: the part of beta that other classes share.
    group: N, or MISSING; rows of one group that are no positives are no negatives.
    Samples without a label are contrasted with samples alone, and have their own other views as positives. An anchor
    without any positive is left out of the mean.
    """
    ids = identity(label)
    rows, others, known = _views(ids, z), _views(ids, keys), _views(label, z) >= 0
    of_queue = torch.where(queue[1] < 0, -1 - world() * len(label), queue[1])  # like no sample of the batch
    every = torch.cat([gather(z), gather(keys), queue[0]])  # M x D
    of_every = torch.cat([gather(rows), gather(others), of_queue])
    rule = None
    if group is not None:
        theirs = torch.cat([gather(_views(group, z)), gather(_views(group, keys)), queue[2]])
        rule = or_positive(foreign(_views(group, z), theirs), (rows, of_every))
    own, z = columns(z), z / temperature
    pull, count = near_mean(z, every, (rows, of_every), own=own)
    b = logits.to(pull.dtype)
    push = b.logsumexp(1)
    if gamma > 0:
        push = torch.where(known, push, -math.inf)
        push = torch.logaddexp(push, far(z, every, skip=own, rule=rule) + math.log(gamma))
    center = b.gather(1, _views(label, z).clamp(min=0)[:, None])[:, 0]
    if smoothing:
        center = (1 - smoothing) * center + smoothing / (b.shape[1] - 1) * (b.sum(1) - center)
    of_center, of_samples = beta * known.to(b.dtype), alpha * count.to(b.dtype)  # VN
    weight = of_center + of_samples
    pull = (of_center * center + of_samples * pull) / weight.clamp(min=1e-12)
    return share(push - pull, (weight > 0) & (known | (gamma > 0)))


def _views(value: Tensor, rows: Tensor) -> Tensor:
    """What is known of N samples, for each row of their views: VN."""
    return value.repeat(len(rows) // len(value))
