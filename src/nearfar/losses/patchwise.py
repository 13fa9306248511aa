"""Losses between parts of samples: patches of images, steps of sequences.

With W ranks, a rank contrasts its own rows with those of all ranks and returns its share of the mean (see
`nearfar.distributed`).
"""

from __future__ import annotations

from torch import Tensor

from nearfar.contrast import far, near
from nearfar.distributed import gather, rank, share
from nearfar.losses.groups import equal_ids


def info_nce_parts(p: Tensor, z: Tensor, positive: Tensor, *, group: Tensor | None = None) -> Tensor:
    """InfoNCE of predictions: each finds the part that it predicts among all parts of all samples.

        loss_i = -p_i . z_positive(i) + log sum_j exp(p_i . z_j)

    p: R x D, equally many of each sample, sample by sample; z: NS x D, the S parts of N samples, sample by sample, of
    any length.  positive: R, int64, rows of z.  group: N, or MISSING: parts of other samples of one's group are not
    negatives; other parts of one's own always are. Equal parts give log of their number on all ranks.
    van den Oord et al. 2018, arXiv 1807.03748.
    """
    keys = gather(z)  # WNS x D
    positive = positive + rank() * len(z)
    pull = near(p, keys, positive)
    if group is None:
        return share(far(p, keys) - pull)
    groups, parts, rows = gather(group), len(z) // len(group), len(p) // len(group)
    first = rank() * len(group)

    def keep(i: Tensor, j: Tensor) -> Tensor:
        mine, theirs = first + i // rows, j // parts
        return ~equal_ids(groups[mine], groups[theirs]) | (mine == theirs)

    return share(far(p, keys, rule=keep) - pull)
