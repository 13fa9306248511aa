"""Losses whose positives are the rows of the same class.

Rows are of unit length. A sample whose label is MISSING has only its own other views as positives. With W ranks, a rank
contrasts its own rows with those of all ranks and returns its share of the mean (see `nearfar.distributed`). Rows
without a positive are left out of the mean, where the released code of SupCon counts them as 0;
`share_with_positive` tells how many take part.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nearfar.contrast import far, near_mean
from nearfar.distributed import columns, gather, share
from nearfar.losses.groups import foreign, or_positive

Queued = tuple[Tensor, Tensor, Tensor]
"""Keys, K x D, their labels and their groups, K."""


def supcon(
    views: list[Tensor],
    label: Tensor,
    *,
    temperature: float | Tensor,
    base_temperature: float | None = None,
    group: Tensor | None = None,
    among: Tensor | None = None,
    anchors: Tensor | None = None,
    queue: Queued | None = None,
) -> Tensor:
    """SupCon (L_out): the mean over the positives p of  -s_ip + log sum_{j != i} exp(s_ij).

    views: V tensors, N x D; label: N, int64, or MISSING. The mean over VN rows, as in the paper; `base_temperature`
    multiplies it by temperature / base_temperature, as in the released code (0.07).  group: N, or MISSING; rows of one
    group that are not positives are not negatives either.  among: N, bool, the samples that take part, as anchors and
    candidates; 0 where there are none.  anchors: N, bool, the samples whose losses are added up; others are candidates.
    queue: keys as further candidates, K x D, the same on all ranks, with their labels and groups, K, or MISSING.
    Khosla et al. 2020, arXiv 2004.11362.
    """
    it = _Anchors.of(views, label, temperature, group, among, queue)
    pull, count = near_mean(it.z, it.keys, it.ids, own=it.own)
    counted = count > 0
    if anchors is not None:
        counted = counted & (anchors if among is None else anchors[among]).repeat(len(views))
    loss = share(it.far() - pull, counted)
    return loss if base_temperature is None else loss * (temperature / base_temperature)


def supcon_in(
    views: list[Tensor],
    label: Tensor,
    *,
    temperature: float | Tensor,
    base_temperature: float | None = None,
    group: Tensor | None = None,
    queue: Queued | None = None,
) -> Tensor:
    """SupCon (L_in), the mean inside the logarithm:  -log mean_p exp(s_ip) + log sum_{j != i} exp(s_ij).

    Arguments as in `supcon`, which is never smaller, and which the paper recommends.
    """
    it = _Anchors.of(views, label, temperature, group, queue=queue)
    count = near_mean(it.z.detach(), it.keys.detach(), it.ids, own=it.own)[1]
    pull = far(it.z, it.keys, skip=it.own, only_same=it.ids)
    pull = pull - count.clamp(min=1).to(pull.dtype).log()
    loss = share(it.far() - pull, count > 0)
    return loss if base_temperature is None else loss * (temperature / base_temperature)


def share_with_positive(label: Tensor, views: int) -> Tensor:
    """The part of the anchors of all ranks that have a positive, 0 to 1, for N labels and V views."""
    if views > 1:
        return torch.ones((), device=label.device)
    _, code, count = torch.unique(gather(identity(label)), return_inverse=True, return_counts=True)
    return (count[code] > 1).float().mean()


@dataclass(slots=True)
class _Anchors:
    z: Tensor  # VN x D, divided by the root of the temperature
    keys: Tensor  # (WVN + K) x D
    ids: tuple[Tensor, Tensor]  # VN, WVN + K: rows of equal id are positives
    own: Tensor  # VN, the column that is the row itself
    group: tuple[Tensor, Tensor] | None  # VN, WVN + K

    @classmethod
    def of(
        cls,
        views: list[Tensor],
        label: Tensor,
        temperature: float | Tensor,
        group: Tensor | None,
        among: Tensor | None = None,
        queue: Queued | None = None,
    ) -> _Anchors:
        z = torch.cat(views) * temperature**-0.5
        keys, own = gather(z), columns(z)
        ids = identity(label).repeat(len(views))
        every_id = gather(ids)
        groups = None if group is None else (group.repeat(len(views)), gather(group.repeat(len(views))))
        nobody = -1 - len(every_id)  # the number of no row
        if among is not None:
            # Rows are left out here, after ranks have exchanged them, for each rank may have another number.
            mine = among.repeat(len(views))
            every, alone = gather(mine), keys is z
            z, place = z[mine], every.cumsum(0) - 1
            keys = z if alone else keys[every]
            groups = None if groups is None else (groups[0][mine], groups[1][every])
            ids, every_id, own = ids[mine], every_id[every], place[own[mine]]
        if queue is not None:
            further, label_of, group_of = queue
            keys = torch.cat([keys, further * temperature**-0.5])
            every_id = torch.cat([every_id, torch.where(label_of < 0, nobody, label_of)])
            groups = None if groups is None else (groups[0], torch.cat([groups[1], group_of]))
        return cls(z, keys, (ids, every_id), own, groups)

    def far(self) -> Tensor:
        if self.group is None:
            return far(self.z, self.keys, skip=self.own)
        return far(self.z, self.keys, skip=self.own, rule=or_positive(foreign(*self.group), self.ids))


def identity(label: Tensor) -> Tensor:
    """The label, or a negative number of its own for each sample that has none."""
    index = columns(label)
    return torch.where(label < 0, -1 - index, label)
