"""Losses that tell a training sample from all others, of which a bank holds one row each.

Rows are of unit length; v: N x D, of this rank; the bank's rows are the same on all ranks and get no gradient. With W
ranks, a rank returns its share of the mean (see `nearfar.distributed`). `groups`: of the rows of v and of the others,
int64, or MISSING: rows of one group are not each other's negatives.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.contrast import Ids, far, near, products
from nearfar.distributed import gather, share
from nearfar.losses.groups import equal_ids


def nce(
    v: Tensor,
    own: Tensor,
    drawn: Tensor,
    *,
    temperature: float | Tensor,
    log_z: Tensor,
    samples: int,
    groups: Ids | None = None,
) -> Tensor:
    """Noise-contrastive estimation: is a row of the bank the sample's own, or drawn at random?

        loss_i = -log h_i(own_i) - sum_j log(1 - h_i(drawn_j))
        h_i(x) = P_i(x) / (P_i(x) + K / n),    P_i(x) = exp(v_i . x / temperature) / Z

    own: N x D, the row of each sample.  drawn: K x D, drawn evenly from all n = samples, the same for all of v.
    log_z: from `log_partition`, a constant. The sum over K is no mean. The released code adds 1e-7 to the denominators,
    which logarithms do without. Wu et al. 2018, arXiv 1805.01978.
    """
    shift = log_z + math.log(len(drawn) / samples)
    # log h is a log-sigmoid: a sum of these over K needs each logit, so here a matrix of N x K is held.
    pull, push = _logits(v, own, drawn, temperature)
    if groups is not None:
        push = push.masked_fill(equal_ids(groups[0][:, None], groups[1]), -math.inf)
    return share(-F.logsigmoid(pull - shift) - F.logsigmoid(shift - push).sum(1))


@torch.no_grad()
def log_partition(v: Tensor, own: Tensor, drawn: Tensor, *, temperature: float | Tensor, samples: int) -> Tensor:
    """log Z, where Z is n times the mean of exp(v_i . x / temperature) over own and drawn rows of all ranks: ()."""
    pull, push = _logits(v, own, drawn, temperature)
    sums = gather(torch.cat([pull, push.flatten()]).logsumexp(0)[None])  # W
    return sums.logsumexp(0) - math.log(len(sums) * (push.numel() + len(v)) / samples)


def instance_softmax(
    v: Tensor, bank: Tensor, index: Tensor, *, temperature: float | Tensor, groups: Ids | None = None
) -> Tensor:
    """Which of all n samples is this? Cross-entropy over the rows of the bank.

        loss_i = -v_i . bank_index(i) / temperature + log sum_j exp(v_i . bank_j / temperature)

    bank: n x D.  index: N, the sample that each row of v is of. Equal rows give log n.
    Wu et al. 2018, arXiv 1805.01978.
    """
    v = v / temperature
    pull = near(v, bank, index)
    return share(torch.logaddexp(pull, far(v, bank, skip=index, exclude_same=groups)) - pull)


def _logits(v: Tensor, own: Tensor, drawn: Tensor, temperature: float | Tensor) -> tuple[Tensor, Tensor]:
    """Of each row with its own, and with those drawn: N, N x K."""
    v = v / temperature
    return (v * own).sum(1), products(v, drawn)
