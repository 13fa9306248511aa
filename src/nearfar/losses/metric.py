"""Losses of metric learning, on distances between rows or on one pair of each class.

A sample whose label is MISSING has only its own other views as positives. With W ranks, a rank compares its own rows
with those of all ranks, so that mining does not depend on their number, and returns its share of the mean (see
`nearfar.distributed`). `group`, N, int64, or MISSING: rows of one group that are not positives are not negatives.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from nearfar.contrast import far, near, products
from nearfar.distributed import columns, gather, share, total, world
from nearfar.losses.groups import equal_ids
from nearfar.losses.supervised import identity

TRIPLETS = 2**22
"""Those that are looked at at a time: 16 MiB of float32, a few times over."""


def triplet(
    views: list[Tensor],
    label: Tensor,
    *,
    margin: float,
    mining: Literal["semi_hard", "batch_hard", "hard", "all"] = "semi_hard",
    soft: bool = False,
    squared: bool = False,
    active: bool = False,
    group: Tensor | None = None,
) -> Tensor:
    """Triplets: the mean of  max(0, d_ap - d_an + margin)  over anchors a, positives p and negatives n.

    views: V tensors, N x D, of unit length; label: N, int64, or MISSING. d is the distance, `squared` its square.
    mining: triplets with d_ap < d_an < d_ap + margin ("semi_hard"), those with d_an <= d_ap ("hard"), all; or of each
    anchor with both, the farthest positive and the nearest negative ("batch_hard").  soft: log(1 + exp(d_ap - d_an)).
    active: the mean over those that are not 0. Without a triplet it is 0. Equal rows give the margin, where they are
    not so equal that no triplet is semi-hard.
    Schroff et al. 2015, arXiv 1503.03832; Hermans et al. 2017, arXiv 1703.07737.
    """
    d, positive, negative = _compared(views, label, group)  # VN x WVN
    d = d.square() if squared else d

    def summed(gap: Tensor, keep: Tensor) -> Tensor:
        loss = F.softplus(gap) if soft else (gap + margin).clamp(min=0)
        keep = keep & (loss > 0) if active else keep
        return torch.stack([torch.where(keep, loss, 0).sum(), keep.sum().to(loss.dtype)])

    def of_pairs(d: Tensor, pairs: Tensor) -> Tensor:
        anchor, other = pairs.unbind(1)
        gap, keep = d[anchor, other][:, None] - d[anchor], negative[anchor]  # T x WVN
        if mining == "semi_hard":
            keep = keep & (gap < 0) & (gap > -margin)
        if mining == "hard":
            keep = keep & (gap >= 0)
        return summed(gap, keep)

    if mining == "batch_hard":
        farthest, nearest = d.masked_fill(~positive, -torch.inf).amax(1), d.masked_fill(~negative, torch.inf).amin(1)
        sums = summed(farthest - nearest, positive.any(1) & negative.any(1))
    else:  # as many as there are rows, cubed, where classes are few: some at a time, and again in the backward pass
        parts = positive.nonzero().split(max(1, TRIPLETS // d.shape[1]))  # T x 2
        again = partial(checkpoint, of_pairs, d, use_reentrant=False, preserve_rng_state=False)
        made = [of_pairs(d, parts[0])] if len(parts) == 1 else [again(part) for part in parts]
        sums = torch.stack(made).sum(0)
    return sums[0] * world() / total(sums[1].detach()).clamp(min=1)


def pairs(
    views: list[Tensor],
    label: Tensor,
    *,
    margin: float,
    positive_margin: float = 0.0,
    linear: bool = False,
    active: bool = False,
    group: Tensor | None = None,
) -> Tensor:
    """Pairs: positives nearer than one margin, negatives farther than another.

        mean over positives of max(0, d - positive_margin)^2 + mean over negatives of max(0, margin - d)^2

    views: V tensors, N x D, of unit length; label: N, int64, or MISSING. linear: without the squares.  active: the
    means over the terms that are not 0. Equal rows give margin^2, without a negative 0.
    Hadsell et al. 2006, "Dimensionality Reduction by Learning an Invariant Mapping", has half of each square.
    """
    d, positive, negative = _compared(views, label, group)  # VN x WVN
    loss = 0 * d.sum()
    for hinge, keep in ((d - positive_margin, positive), (margin - d, negative)):
        term = hinge.clamp(min=0) if linear else hinge.clamp(min=0).square()
        loss = loss + share(term, keep & (term > 0) if active else keep)
    return loss


def n_pairs(
    a: Tensor, p: Tensor, label: Tensor, order: Tensor, *, penalty: float = 0.0, group: Tensor | None = None
) -> Tensor:
    """N-pairs: each anchor finds the one positive of its class among one positive of each other class.

        loss_i = log(1 + sum_{j != i} exp(a_i . p_j - a_i . p_i)) + penalty (|a_i|^2 + |p_i|^2) / 2

    a, p: N x D, of any length, the first and the second view; label: N, int64, or MISSING. order: WN, a permutation of
    the samples of all ranks, the same on every rank: by it the samples of a class take turns, the positive of each is
    the second view of the next, and the anchors whose turn it is are contrasted with each other's positives.
    Sohn 2016, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective".
    """
    turn, partner = next_of_class(gather(identity(label)), order)
    own, keys = columns(a), gather(p).index_select(0, partner)  # WN x D, column j the positive of anchor j
    pull, at_once = near(a, keys, own), (turn[own], turn)
    groups = None if group is None else gather(group)
    apart = None if groups is None else (groups[own], groups[partner])
    push = torch.logaddexp(pull, far(a, keys, skip=own, only_same=at_once, exclude_same=apart))
    length = (a.float().square().sum(1) + p.float().square().sum(1)) / 2
    return share(push - pull + penalty * length)


def next_of_class(ids: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """By an order of M rows: how many of its id come before each, and which of its id comes next, round and round.

    ids: M; order: M, a permutation. Gives M and M, int64; a row that is alone is its own next.
    """
    row = order[torch.argsort(ids[order], stable=True)]  # id by id, and by the order within
    _, code, count = torch.unique_consecutive(ids[row], return_inverse=True, return_counts=True)
    first = (count.cumsum(0) - count)[code]
    place = torch.arange(len(row), device=row.device) - first
    following = row[first + (place + 1) % count[code]]
    return torch.empty_like(row).scatter(0, row, place), torch.empty_like(row).scatter(0, row, following)


def _compared(views: list[Tensor], label: Tensor, group: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """The distances of this rank's rows to all, which are positives and which are negatives: VN x WVN each.

    The matrix is held: what is mined depends on each pair.
    """
    z = torch.cat(views)
    d = (2 - 2 * products(z, gather(z))).clamp(min=1e-12).sqrt()  # the root of 0 has no gradient
    mine = identity(label).repeat(len(views))
    alike = mine[:, None] == gather(mine)
    negative = ~alike
    if group is not None:
        of = group.repeat(len(views))
        negative &= ~equal_ids(of[:, None], gather(of))
    itself = torch.zeros_like(alike).scatter(1, columns(z)[:, None], True)
    return d, alike & ~itself, negative
