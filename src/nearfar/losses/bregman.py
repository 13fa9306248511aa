"""NT-Xent on similarities that come from a learned Bregman divergence."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.distributed import gather, rank, share, total


def divergences(f: Tensor) -> Tensor:
    """How far each row is from any row of each kind: max_k f_ik - f_ip, 0 or more. N x K.

    f: N x K, what K sub-networks say of each row; a row is of kind p where sub-network p says most.
    """
    return f.amax(1, keepdim=True) - f


def bregman(
    f1: Tensor, f2: Tensor, *, temperature: float | Tensor, sigma: float = 0.9, group: Tensor | None = None
) -> Tensor:
    """Each of the 2N rows finds its other view among the 2N - 1 others, by a functional Bregman divergence.

        loss_i = -s_ip + log sum_{j != i} exp(s_ij),    s_ij = exp(-D_ij / (2 sigma^2)) / temperature
        D_ij = max_k f_ik - f_i,kind(j),    kind(j) = argmax_k f_jk

    f1, f2: N x K, two views; the mean over 2N rows. D depends on j through its kind alone, so that the sum runs over
    kinds, each as often as there are rows of it: no pair is ever formed. The gradient passes through both terms of D,
    none through kinds: where all rows are of one kind, D is 0 and so is the gradient, and the loss log(2N - 1).
    group: N, or MISSING; rows of one group are not each other's negatives. Rezaei et al. 2021, arXiv 2109.07455.
    """
    f = torch.cat([f1, f2])  # 2N x K
    s = (-divergences(f) / (2 * sigma**2)).exp() / temperature  # 2N x K
    kind = f.detach().argmax(1)
    sibling = kind.roll(len(f1))
    one = torch.nn.functional.one_hot(kind, f.shape[1]).to(s.dtype)
    if group is None:
        count = total(one.sum(0)) - one  # 2N x K, all but the row itself
    else:
        count = total(one.sum(0)) - _of_the_group(one, group.repeat(2))
        count = count + torch.nn.functional.one_hot(sibling, f.shape[1])
    return share((s + count.log()).logsumexp(1) - s.gather(1, sibling[:, None])[:, 0])


def _of_the_group(one: Tensor, group: Tensor) -> Tensor:
    """How many rows of each kind share the group of a row, on all ranks; a row without one shares its own sample's."""
    here = rank() * len(group) // 2 + torch.arange(len(group) // 2, device=group.device).repeat(2)
    names = torch.where(group < 0, -1 - here, group)
    every, rows = torch.unique(gather(names), return_inverse=True)
    sums = one.new_zeros(len(every), one.shape[1]).index_add(0, rows, gather(one))
    return sums[torch.searchsorted(every, names)]
