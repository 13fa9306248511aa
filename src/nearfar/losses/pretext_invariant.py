"""PIRL's loss: a view is told from drawn samples, and each of these from the others drawn.

With W ranks, a rank returns its share of the mean over the rows of all ranks (see `nearfar.distributed`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.contrast import Ids, products
from nearfar.distributed import share
from nearfar.losses.groups import equal_ids


def told_apart(
    v: Tensor,
    own: Tensor,
    drawn: Tensor,
    *,
    temperature: float | Tensor,
    groups: Ids | None = None,
    hidden: Tensor | None = None,
) -> Tensor:
    """PIRL's noise-contrastive loss, as the paper has it.

        loss_i = -log h_i(own_i) - sum_j log(1 - h_i(drawn_j))
        h_i(x) = exp(v_i . x / temperature) / (exp(v_i . x / temperature) + sum_j exp(v_i . drawn_j / temperature))

    v: N x D; own: N x D, the row of the bank of each sample; drawn: K x D, other rows, the same on all ranks.
    groups: of v and of drawn, N and K; rows of one group are not each other's negatives.  hidden: N x K, bool, the
    drawn rows that are no negatives of a row. The first term is InfoNCE; the second is between log 2 and 1. Equal rows
    give log(1 + K) + K log(1 + 1/K).
    Misra and van der Maaten 2019, arXiv 1912.01991.
    """
    v = v / temperature
    # The second term is no log-sum-exp: it needs each logit, so a matrix of N x K is held.
    pull, push = (v * own).sum(1), products(v, drawn)  # N, N x K
    if hidden is not None:
        push = push.masked_fill(hidden, -math.inf)
    if groups is not None:
        push = push.masked_fill(equal_ids(groups[0][:, None], groups[1]), -math.inf)
    far = push.logsumexp(1)  # N; -inf where no negative is left
    some = far.isfinite()
    apart = F.softplus(push - torch.where(some, far, 0)[:, None]).sum(1)
    return share(torch.logaddexp(pull, far) - pull + torch.where(some, apart, 0))
