"""Losses whose positives are the rows of the same class.

Rows are of unit length. A sample whose label is MISSING has only its own other views as positives. With W ranks, a rank
contrasts its own rows with those of all ranks and returns its share of the mean (see `nearfar.distributed`). Rows
without a positive are left out of the mean; `share_with_positive` tells how many take part.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nearfar.contrast import far, near_mean
from nearfar.distributed import columns, gather, share


def supcon(
    views: list[Tensor],
    label: Tensor,
    *,
    temperature: float | Tensor,
    base_temperature: float | None = None,
    group: Tensor | None = None,
) -> Tensor:
    """SupCon (L_out): the mean over the positives p of  -s_ip + log sum_{j != i} exp(s_ij).

    views: V tensors, N x D; label: N, int64, or MISSING. The mean over VN rows, as in the paper; `base_temperature`
    multiplies it by temperature / base_temperature, as in the released code (0.07).  group: N, or MISSING; rows of one
    group that are not positives are not negatives either.
    Khosla et al. 2020, arXiv 2004.11362.
    """
    it = _Anchors.of(views, label, temperature)
    pull, count = near_mean(it.z, it.keys, it.ids, own=it.own)
    loss = share(it.far(group) - pull, count > 0)
    return loss if base_temperature is None else loss * (temperature / base_temperature)


def supcon_in(
    views: list[Tensor],
    label: Tensor,
    *,
    temperature: float | Tensor,
    base_temperature: float | None = None,
    group: Tensor | None = None,
) -> Tensor:
    """SupCon (L_in), the mean inside the logarithm:  -log mean_p exp(s_ip) + log sum_{j != i} exp(s_ij).

    Arguments as in `supcon`, which is never smaller, and which the paper recommends.
    """
    it = _Anchors.of(views, label, temperature)
    count = near_mean(it.z.detach(), it.keys.detach(), it.ids, own=it.own)[1]
    pull = far(it.z, it.keys, skip=it.own, together=it.ids)
    pull = pull - count.clamp(min=1).to(pull.dtype).log()
    loss = share(it.far(group) - pull, count > 0)
    return loss if base_temperature is None else loss * (temperature / base_temperature)


def share_with_positive(label: Tensor, views: int) -> Tensor:
    """The part of the anchors of all ranks that have a positive, 0 to 1, for N labels and V views."""
    if views > 1:
        return torch.ones((), device=label.device)
    _, code, count = torch.unique(gather(_identity(label)), return_inverse=True, return_counts=True)
    return (count[code] > 1).float().mean()


@dataclass(slots=True)
class _Anchors:
    z: Tensor  # VN x D, divided by the root of the temperature
    keys: Tensor  # WVN x D
    ids: tuple[Tensor, Tensor]  # VN, WVN: rows of equal id are positives
    own: Tensor  # VN, the column that is the row itself

    @classmethod
    def of(cls, views: list[Tensor], label: Tensor, temperature: float | Tensor) -> _Anchors:
        z = torch.cat(views) * temperature**-0.5
        ids = _identity(label).repeat(len(views))
        return cls(z, gather(z), (ids, gather(ids)), columns(z))

    def far(self, group: Tensor | None) -> Tensor:
        if group is None:
            return far(self.z, self.keys, skip=self.own)
        mine = group.repeat(len(self.z) // len(group))
        every, (ids, all_ids) = gather(mine), self.ids

        def keep(i: Tensor, j: Tensor) -> Tensor:
            return (mine[i] != every[j]) | (mine[i] < 0) | (ids[i] == all_ids[j])

        return far(self.z, self.keys, skip=self.own, rule=keep)


def _identity(label: Tensor) -> Tensor:
    """The label, or a negative number of its own for each sample that has none."""
    index = columns(label)
    return torch.where(label < 0, -1 - index, label)
