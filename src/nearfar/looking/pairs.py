"""Pairs of rows that a contrast finds hard: views of a sample that lie apart, and other samples that lie near."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import MISSING


def hardest_positives(first: Tensor, second: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The samples whose two views are farthest apart, by cosine: their positions, the farthest first, and all cosines.

    first, second: N x D, what the views of each sample became. Gives int64, `count` at most, and N.
    """
    cosine = F.cosine_similarity(first.float(), second.float(), dim=1)  # N
    return cosine.argsort(stable=True)[:count], cosine


def gradient_shares(
    z: Tensor, anchors: Tensor, *, temperature: float, group: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The share of each other sample in the force that pushes an anchor away, and their cosines: A x N each.

        share_ij = exp(z_i . z_j / temperature) / sum over the others k of exp(z_i . z_k / temperature)

    the gradient of the log-sum-exp over negatives in each similarity. An anchor's own share is 0, as are those of
    the samples of its group, and their cosines -inf; a row sums to 1 where any others are left.
    z: N x D.  anchors: positions, A int64.  group: N int64, or MISSING.
    """
    unit = F.normalize(z.float(), dim=1)
    cosine = unit[anchors] @ unit.T  # A x N
    out = anchors[:, None] == torch.arange(len(unit), device=z.device)
    if group is not None:
        out = out | ((group[anchors, None] == group) & (group[anchors, None] != MISSING))
    share = (cosine / temperature).masked_fill(out, -torch.inf).softmax(1)
    return share.nan_to_num(0.0), cosine.masked_fill(out, -torch.inf)


def suspicious_anchors(nearest: Tensor, partner: Tensor, count: int) -> Tensor:
    """The anchors whose nearest other sample is nearest of all, each pair once: int64, `count` at most.

    nearest: N, the cosine of each with its nearest other.  partner: N int64, which that is.
    """
    chosen: list[int] = []
    taken: set[int] = set()
    for i in nearest.argsort(descending=True, stable=True).tolist():
        if i not in taken:
            chosen.append(i)
            taken |= {i, int(partner[i])}
        if len(chosen) == count:
            break
    return torch.tensor(chosen, dtype=torch.int64)
