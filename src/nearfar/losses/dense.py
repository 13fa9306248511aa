"""Losses between the cells of two maps of the same samples.

With W ranks, each returns its share of the mean (see `nearfar.distributed`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.contrast import products
from nearfar.distributed import normalize, share
from nearfar.losses.pairwise import info_nce


@torch.no_grad()
def most_alike(f: Tensor, g: Tensor) -> Tensor:
    """For each cell of one map the most similar cell, by cosine, of the other map of the sample: N x S, int64.

    f: N x S x C; g: N x T x C, of any length.
    """
    return products(normalize(f), normalize(g)).argmax(2)


def info_nce_cells(
    q: Tensor,
    k: Tensor,
    match: Tensor,
    queue: Tensor,
    *,
    temperature: float | Tensor,
    groups: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """InfoNCE of cells against a queue: each cell finds its match among K negatives.

        loss_is = -p_is + log(exp(p_is) + sum_j exp(q_is . queue_j / temperature)),    p_is = q_is . k_im / temperature

    q: N x S x D; k: N x T x D.  match: N x S, int64, m, a cell of k for each of q.  queue: K x D, the same on all
    ranks.  groups: of the samples and of the queue, N and K.  The mean over N S cells. Equal rows give log(1 + K).
    Wang et al. 2021, arXiv 2011.09157.
    """
    found = k.gather(1, match[:, :, None].expand(-1, -1, k.shape[2])).flatten(0, 1)
    apart = None if groups is None else (groups[0].repeat_interleave(q.shape[1]), groups[1])
    return info_nce(q.flatten(0, 1), found, queue, temperature=temperature, groups=apart)


def same_cells(y: Tensor, x: Tensor, same: Tensor) -> Tensor:
    """PixPro, one direction: minus the mean cosine of cells of two views that show the same place.

        loss_i = -mean over pairs (s, t) that are the same of  cos(y_is, x_it)

    y: N x S x D, predictions; x: N x T x D, targets, detached by the caller, of any length.  same: N x S x T, bool.
    The mean over N samples, of which those without a pair count as 0. The method sums two directions; the released
    code doubles that. Xie et al. 2021, arXiv 2011.10043.
    """
    cosine = products(normalize(y), normalize(x))  # N x S x T
    return share(-(cosine * same).sum((1, 2)) / same.sum((1, 2)).clamp(min=1))
