"""Losses that predict the assignment of one view from another. Ranks hold equally many rows, so a mean is a share."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def swapped_assignment(scores: list[Tensor], codes: list[Tensor], *, temperature: float | Tensor) -> Tensor:
    """Swapped prediction: every crop predicts the codes of the other crops that have one.

        L = mean over coded crops i of  1/(V-1) sum_{v != i} -sum_k codes_i,k log softmax_k(scores_v / temperature)

    scores: V crops, N x K, similarities to K prototypes; codes: for the first crops only (two in the paper), N x K,
    rows that sum to 1, without gradient (`nearfar.clustering.sinkhorn`). Equal prototypes give log K.
    Caron et al. 2020, arXiv 2006.09882.
    """
    if len(scores) < 2 or len(codes) > len(scores):
        raise ValueError(
            f"swapped_assignment wants at least 2 crops, and codes for some of them, not {len(scores)} and {len(codes)}"
        )
    loss = torch.zeros((), device=scores[0].device)
    for v, score in enumerate(scores):
        others = [code for i, code in enumerate(codes) if i != v]
        if others:
            # Linear in the target, so that one pass serves all codes.
            loss = loss + F.cross_entropy(score / temperature, sum(others[1:], others[0]))
    return loss / (len(codes) * (len(scores) - 1))
