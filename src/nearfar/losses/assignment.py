"""Losses that predict the assignment of one view from another."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.distributed import share


def swapped_assignment(scores: list[Tensor], codes: list[Tensor], *, temperature: float | Tensor) -> Tensor:
    """Swapped prediction: every crop predicts the codes of the other crops that have one.

        L = mean over coded crops i of  1/(V-1) sum_{v != i} -sum_k codes_i,k log softmax_k(scores_v / temperature)

    scores: V crops, N x K, similarities to K prototypes; codes: for the first crops only (two in the paper), N x K, rows
    that sum to 1, without gradient (`nearfar.clustering.sinkhorn`). Equal prototypes give log K.
    Caron et al. 2020, arXiv 2006.09882.
    """
    if len(scores) < 2 or len(codes) > len(scores):
        raise ValueError(
            f"swapped_assignment wants at least 2 crops, and codes for some of them, not {len(scores)} and {len(codes)}"
        )
    loss = scores[0].new_zeros(len(scores[0]))  # N
    for v, score in enumerate(scores):
        others = [code for i, code in enumerate(codes) if i != v]
        if others:
            logits = score / temperature  # N x K
            loss = loss + len(others) * logits.logsumexp(1) - (torch.stack(others).sum(0) * logits).sum(1)
    return share(loss) / (len(codes) * (len(scores) - 1))
