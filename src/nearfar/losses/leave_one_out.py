"""The loss of an embedding space that stays sensitive to one augmentation."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.contrast import far, near
from nearfar.distributed import columns, gather, share


def leave_one_out(
    q: Tensor,
    k: Tensor,
    others: list[Tensor],
    queue: Tensor,
    *,
    temperature: float | Tensor,
    groups: tuple[Tensor, Tensor] | None = None,
    batch: bool = False,
) -> Tensor:
    """Each query finds its key among a queue and the other keys of its own sample, whose augmentation differs.

        loss_i = -q_i . k_i + log(exp(q_i . k_i) + sum_v exp(q_i . others_v,i) + sum_j exp(q_i . queue_j))

    with all products over the temperature. q, k: N x D; others: n tensors, N x D; queue: K x D, the same on all ranks.
    groups: of this rank's samples, N, and of the queue, K.  batch: the other keys of all samples of the batch are
    negatives, not of the same sample alone. Equal rows give log(1 + n + K), with `batch` log(1 + nN + K).
    Xiao et al. 2020, arXiv 2008.05659; `batch` as in Seasonal Contrast, arXiv 2103.16607.
    """
    q = q / temperature
    pull = near(q, k, torch.arange(len(q), device=q.device))
    terms = [pull, far(q, queue, exclude_same=groups), *((q * other).sum(1) for other in others)]
    if batch:
        own = columns(q)
        apart = None if groups is None else (groups[0], gather(groups[0]))
        terms += [far(q, gather(other), skip=own, exclude_same=apart) for other in others]
    return share(torch.stack(terms).logsumexp(0) - pull)
