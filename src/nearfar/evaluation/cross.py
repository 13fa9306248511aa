"""Retrieval across sides: where, among all of one side, what belongs to a sample of another stands."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.errors import UserError
from nearfar.evaluation.protocol import finite

KS = (1, 5, 10)
"""Of recall@k."""


def ranks(query: Tensor, gallery: Tensor, belongs: Tensor, without: Tensor | None = None) -> Tensor:
    """How many of the gallery come before the first that belongs to each query, by cosine: Q, int64, from 0.

    query: Q x D.  gallery: N x D.  belongs: P x 2, int64, a query and what belongs to it: any one counts.
    without: likewise, what a query does not look among, such as itself.
    Of equal cosines the lower index comes first. Raises ValueError where nothing belongs to a query.
    """
    if query.shape[1] != gallery.shape[1]:
        raise UserError(f"rows of {query.shape[1]} and {gallery.shape[1]} numbers cannot be compared; wanted one width")
    q, g = F.normalize(finite(query, "query").float(), dim=1), F.normalize(finite(gallery, "gallery").float(), dim=1)
    place, found = torch.arange(len(g)), []
    for rows in torch.arange(len(q)).split(max(1, 2**22 // len(g))):
        cosine = q[rows] @ g.T  # q x N
        if without is not None:
            cosine.masked_fill_(_marked(without, rows, len(g)), -torch.inf)
        own = _marked(belongs, rows, len(g))
        if not bool(own.any(1).all()):
            raise UserError("a query has nothing that belongs to it: leave it out")
        best = cosine.masked_fill(~own, -torch.inf).amax(1, keepdim=True)
        first = (own & (cosine == best)).int().argmax(1, keepdim=True)
        found.append(((cosine > best) | ((cosine == best) & (place < first))).sum(1))
    return torch.cat(found)


def _marked(pairs: Tensor, rows: Tensor, width: int) -> Tensor:
    """Which of the gallery are named for some queries, that stand one after the other: q x N, bool."""
    own = pairs[(pairs[:, 0] >= rows[0]) & (pairs[:, 0] <= rows[-1])]
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    mask[own[:, 0] - rows[0], own[:, 1]] = True
    return mask


def chance(belongs: Tensor, gallery: int, ks: Sequence[int] = KS) -> dict[int, float]:
    """The recall@k, in per cent, of a ranking at random. gallery: how many are ranked."""
    count = belongs[:, 0].bincount()
    count = count[count > 0].tolist()
    return {
        k: 100
        * sum(1 - comb(gallery - n, min(k, gallery)) / comb(gallery, min(k, gallery)) for n in count)
        / len(count)
        for k in ks
    }


def median_rank(rank: Tensor) -> int:
    """The median rank, counted from 1; between two it is cut off to a whole number."""
    return int(np.median(rank.numpy())) + 1


def class_weights(prompt: Tensor, label: Tensor, classes: int) -> Tensor:
    """A row for each class, with which samples are compared: the normalized mean of its normalized prompts (arXiv
    2103.00020, 3.1.4).

    prompt: P x D.  label: P, int64, the class of each. Raises ValueError for a class without a prompt.
    """
    count = label.bincount(minlength=classes)
    if int(count.min()) == 0:
        raise UserError(f"class {int(count.argmin())} has no prompt: each of the {classes} classes takes one or more")
    rows = F.normalize(finite(prompt, "prompt").float(), dim=1)
    return F.normalize(torch.zeros(classes, rows.shape[1]).index_add_(0, label, rows) / count[:, None], dim=1)
