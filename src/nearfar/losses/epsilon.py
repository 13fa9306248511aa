"""Losses with labels that ask a positive to exceed the negatives by a margin epsilon, in units of the logits.

Rows are of unit length, s_ij = z_i . z_j / temperature; P are the rows of the class of row i, its own other views among
them and itself not; the sum over n is over the rows of other classes. A sample whose label is MISSING has only its own
other views as positives and is a negative of all others. With W ranks, a rank contrasts its own rows with those of all
ranks and returns its share of the mean. Rows without a positive are left out of the mean (the released code counts them
as 0). For all: views: V tensors, N x D; label: N, int64, or MISSING; `base_temperature` multiplies by temperature /
base_temperature, as the released code does with 0.07; group: N, or MISSING: rows of one group that are not positives
are not negatives either. With one positive a row the three are one, and at epsilon 0 that is NT-Xent.

Barbano et al. 2023, "Unbiased Supervised Contrastive Learning", arXiv 2211.05568.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nearfar.contrast import far, near_mean
from nearfar.distributed import columns, gather, share
from nearfar.losses.groups import foreign
from nearfar.losses.strips import strips


def sup_info_nce(
    views: list[Tensor],
    label: Tensor,
    *,
    temperature: float | Tensor,
    epsilon: float,
    base_temperature: float | None = None,
    group: Tensor | None = None,
) -> Tensor:
    """Epsilon-SupInfoNCE: every positive against the negatives alone; other positives do not push.

        loss_i = mean_p [ -s_ip + log(exp(s_ip - epsilon) + sum_n exp(s_in)) ]

    The logarithm is of each positive pair, so that pairs are needed; they are had in strips. Never below -epsilon.
    """
    it = _Compared.of(views, label, temperature)
    pull, count = near_mean(it.z, it.keys, it.ids, own=it.own)
    others = it.negatives(group)

    def push(where: slice) -> Tensor:
        s = it.z[where] @ it.keys.T  # n x WVN
        positive = it.ids[0][where, None] == it.ids[1]
        positive = positive.scatter(1, it.own[where, None], False)
        return torch.where(positive, torch.logaddexp(s - epsilon, others[where, None]), 0).sum(1)

    push_mean = torch.cat(strips(push, len(it.z), len(it.keys))) / count.clamp(min=1)
    return _scaled(share(push_mean - pull, count > 0), temperature, base_temperature)


def sup_info_nce_in(
    views: list[Tensor],
    label: Tensor,
    *,
    temperature: float | Tensor,
    epsilon: float,
    base_temperature: float | None = None,
    group: Tensor | None = None,
) -> Tensor:
    """The form with the sum over the positives inside the logarithm; never below -epsilon - log |P|.

    loss_i = -log sum_p exp(s_ip) + log(mean_p exp(s_ip - epsilon) + sum_n exp(s_in))
    """
    it = _Compared.of(views, label, temperature)
    pull, count = it.positives()
    mean = pull - count.clamp(min=1).to(pull.dtype).log()
    loss = share(torch.logaddexp(mean - epsilon, it.negatives(group)) - pull, count > 0)
    return _scaled(loss, temperature, base_temperature)


def epsilon_supcon(
    views: list[Tensor],
    label: Tensor,
    *,
    temperature: float | Tensor,
    epsilon: float,
    base_temperature: float | None = None,
    group: Tensor | None = None,
) -> Tensor:
    """Epsilon-SupCon: SupCon (L_out) whose positives push less, by exp(-epsilon); at epsilon 0 it is SupCon.

    loss_i = mean_p [ -s_ip ] + log(sum_p exp(s_ip - epsilon) + sum_n exp(s_in))
    """
    it = _Compared.of(views, label, temperature)
    pull = near_mean(it.z, it.keys, it.ids, own=it.own)[0]
    positives, count = it.positives()
    loss = share(torch.logaddexp(positives - epsilon, it.negatives(group)) - pull, count > 0)
    return _scaled(loss, temperature, base_temperature)


def _scaled(loss: Tensor, temperature: float | Tensor, base_temperature: float | None) -> Tensor:
    return loss if base_temperature is None else loss * (temperature / base_temperature)


@dataclass(slots=True)
class _Compared:
    z: Tensor  # VN x D, divided by the root of the temperature
    keys: Tensor  # WVN x D
    ids: tuple[Tensor, Tensor]  # VN, WVN: rows of equal id are positives
    own: Tensor  # VN, the column that is the row itself

    @classmethod
    def of(cls, views: list[Tensor], label: Tensor, temperature: float | Tensor) -> _Compared:
        z = torch.cat(views) * temperature**-0.5
        # One without a label has an odd number of its own: `far` takes negative ids to be equal to nothing.
        ids = torch.where(label < 0, 2 * columns(label) + 1, 2 * label).repeat(len(views))
        return cls(z, gather(z), (ids, gather(ids)), columns(z))

    def positives(self) -> tuple[Tensor, Tensor]:
        """log sum_p exp(s_ip), 0 where there is none, and how many there are."""
        count = near_mean(self.z.detach(), self.keys.detach(), self.ids, own=self.own)[1]
        return torch.where(count > 0, far(self.z, self.keys, skip=self.own, only_same=self.ids), 0), count

    def negatives(self, group: Tensor | None) -> Tensor:
        """log sum_n exp(s_in)."""
        if group is None:
            return far(self.z, self.keys, exclude_same=self.ids)
        mine = group.repeat(len(self.z) // len(group))
        return far(self.z, self.keys, exclude_same=self.ids, rule=foreign(mine, gather(mine)))
