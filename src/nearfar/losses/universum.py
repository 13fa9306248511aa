"""A supervised loss with a mixture of two classes for each row: near to both, and of neither (UniCon)."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.contrast import far, near_mean
from nearfar.distributed import columns, gather, share
from nearfar.losses.groups import foreign, or_positive
from nearfar.losses.supervised import identity


def universum(
    views: list[Tensor],
    mixed: list[Tensor],
    label: Tensor,
    partner: Tensor,
    *,
    temperature: float | Tensor,
    pull: bool = True,
    base_temperature: float | None = None,
    group: Tensor | None = None,
) -> Tensor:
    """Each row finds the mixtures that are half of its class among those of all other rows; or they only push it.

        loss_i = -mean_p z_i . v_p / T + log sum_{j != i} exp(z_i . v_j / T)                                  pull
        loss_i = -mean_p z_i . z_p / T + log(sum_{j != i} exp(z_i . z_j / T) + sum_j exp(z_i . v_j / T))      not pull

    views: V tensors, N x D, unit rows; mixed: V tensors likewise, v_j being made of row j and of sample partner_j.
    label: N, int64, or MISSING; p are the rows of the label of i but itself.  partner: VN, int64, samples counted over
    all ranks.  base_temperature: as in `supcon`.  group: N, or MISSING; what is half of the group of a row is not its
    negative, but may be its positive. The mean over VN rows. With mixtures that are the rows themselves the first is
    `supcon`. Han et al. 2022, arXiv 2204.10695; the first is that of the released code.
    """
    q, v = torch.cat(views) / temperature, gather(torch.cat(mixed))  # VN x D, WVN x D
    keys, own = v if pull else gather(torch.cat(views)), columns(q)
    ids = identity(label).repeat(len(views))
    both = ids, gather(ids)
    of_mixed = of_keys = None
    if group is not None:
        mine = group.repeat(len(views))
        first, second = gather(mine), gather(gather(group)[partner])
        of_mixed = foreign(mine, first, second)
        of_keys = or_positive(of_mixed if pull else foreign(mine, first), both)
    near, count = near_mean(q, keys, both, own=own)
    push = far(q, keys, skip=own, rule=of_keys)
    if not pull:
        push = torch.logaddexp(push, far(q, v, rule=of_mixed))
    loss = share(push - near, count > 0)
    return loss if base_temperature is None else loss * (temperature / base_temperature)
