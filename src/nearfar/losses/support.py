"""Losses of a support set: the ranking of pairs by their hardest negatives, and captions written from other samples.

Rows are of unit length. With W ranks, a rank compares its own rows with those of all ranks and returns its share of
the mean (see `nearfar.distributed`). `group`, N, int64, or MISSING: rows of one group are not each other's negatives.
Patrick et al. 2020, arXiv 2010.02824.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.contrast import Ids, near, products
from nearfar.distributed import columns, gather, share
from nearfar.losses.classification import single
from nearfar.losses.groups import equal_ids

Mode = Literal["cross", "hybrid", "full", "identity"]


def hardest_hinge(q: Tensor, k: Tensor, *, margin: float, group: Tensor | None = None) -> Tensor:
    """Each of a pair is to be nearer to its partner than to the nearest other, by a margin, in both directions.

        loss_i = max_{j != i} max(0, margin - s_ii + s_ij) + max_{j != i} max(0, margin - s_ii + s_ji)

    q, k: N x D; s_ij = q_i . k_j. A row without a negative adds 0. Equal rows give twice the margin.
    """
    loss = 0
    for rows, others in ((q, k), (k, q)):
        keys, own = gather(others), columns(rows)
        s = products(rows, keys).masked_fill(_own(own, len(keys), group), -torch.inf)
        loss = loss + share((margin - near(rows, keys, own) + s.amax(1)).clamp(min=0))
    return torch.as_tensor(loss)


def support_weights(
    t: Tensor, keys: Tensor, *, mode: Mode, temperature: float, own: Tensor, apart: Sequence[Ids] = ()
) -> Tensor:
    """How much each candidate counts in what the sample of a row is written from: N x K, rows that add up to 1.

        w_ij = exp(s_ij / temperature) / sum_{k in S_i} exp(s_ik / temperature)    for j in S_i, else 0

    t: N x D, what is to be written.  keys: K x D, the candidates of all ranks, and of a bank.  own: N, the column of
    row i itself.  mode: S_i is i alone ("identity"), all ("full"), or all but i ("cross"); "hybrid" is the mean of the
    first two.  apart: ids of rows and candidates, by which "cross" leaves out those of equal ids too, such as groups,
    and past rows of the same sample. A row that has nobody else is all 0.
    """
    itself = F.one_hot(own, len(keys)).to(t.dtype)
    if mode == "identity":
        return itself
    s = products(t, keys) / temperature
    if mode != "cross":
        weight = s.softmax(1)
        return weight if mode == "full" else (weight + itself.to(weight.dtype)) / 2
    hidden = itself.bool()
    for mine, theirs in apart:
        hidden = hidden | equal_ids(mine[:, None], theirs)
    # A row that is hidden as a whole is NaN in between, and so would its gradient be, which the masks stop.
    return s.masked_fill(hidden, -torch.inf).softmax(1).masked_fill(hidden, 0)


def captioning(logits: Tensor, ids: Tensor, length: Tensor, keep: Tensor | None = None) -> Tensor:
    """What writing a sentence word by word costs: minus the log-probability of a word, the mean over each sentence.

        loss_i = -(1 / |t_i|) sum_k log p(t_i[k] | t_i[< k])

    logits: N x L x V, for each word.  ids: N x L, int64, the words, and length: N, how many there are; what stands
    behind the end does not count.  keep: N, bool, the rows of which the mean is taken.
    """
    loss = F.cross_entropy(single(logits).transpose(1, 2), ids, reduction="none")  # N x L
    inside = torch.arange(ids.shape[1], device=ids.device) < length[:, None]
    return share(torch.where(inside, loss, 0).sum(1) / length.clamp(min=1), keep)


def _own(own: Tensor, count: int, group: Tensor | None) -> Tensor:
    """Which columns are no negatives of a row: itself, and those of its group: N x count, bool."""
    itself = torch.arange(count, device=own.device) == own[:, None]
    return itself if group is None else itself | equal_ids(group[:, None], gather(group))
