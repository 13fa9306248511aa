"""Losses whose target is how alike other samples are to the anchor, in the eyes of a slow copy.

Rows are of unit length. `groups`: of the queries and of the queue, int64, or MISSING: a key of the query's own group
counts neither in the target nor in the prediction.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from nearfar.contrast import Ids, far
from nearfar.distributed import share as share_of_rank


def sce(
    q: Tensor,
    k: Tensor,
    queue: Tensor,
    *,
    temperature: float | Tensor,
    target_temperature: float,
    share: float,
    own: Literal["left_out", "zero"] = "left_out",
    groups: Ids | None = None,
) -> Tensor:
    """Cross-entropy of one's own key and the queue with a target of both: the key, and what in the queue is like it.

        loss_i = -sum_j w_ij log p_ij,    p_i = softmax([q_i . k_i, q_i . queue_1, ...] / temperature)
        w_i = share * [1, 0, ...] + (1 - share) * softmax([-inf, k_i . queue_1, ...] / target_temperature)

    q, k: N x D; queue: K x D; no gradient reaches k and the queue.  own: of the target's softmax, the slot of the key
    itself is left out (-inf, the paper) or has the logit 0 (the released code).  share 1 is InfoNCE. Equal rows give
    log(1 + K). The K weights of a row are never held: what they pull to is their mean of the queue.
    Denize et al. 2021, arXiv 2111.14585.
    """
    middle, log_sum = _mean_like(k.detach() / target_temperature, queue, groups)  # N x D, N
    # Of the target's softmax, what falls to the own slot: all of it where the queue has nothing else.
    kept = (-log_sum).sigmoid() if own == "zero" else (~log_sum.isfinite()).to(log_sum.dtype)
    q = q / temperature
    pull = (q * k).sum(1)
    others = far(q, queue, exclude_same=groups)
    first = share + (1 - share) * kept  # N, the weight of the own key
    return share_of_rank(torch.logaddexp(pull, others) - first * pull - (1 - first) * (q * middle).sum(1))


def _mean_like(k: Tensor, queue: Tensor, groups: Ids | None) -> tuple[Tensor, Tensor]:
    """The mean of the queue, weighted by softmax(k . queue), and the log of the sum of the exponentials: N x D, N."""
    with torch.enable_grad():  # also where the caller wants no gradient: the mean is one
        k = k.requires_grad_()
        log_sum = far(k, queue, exclude_same=groups)
        (mean,) = torch.autograd.grad(log_sum.sum(), k)
    return mean, log_sum.detach()
