"""Supervised contrast of the batch and of what is mined from a queue with as many keys of every class (ResCom).

Rows are of unit length. With W ranks, a rank contrasts its own rows with those of all ranks and returns its share of
the mean (see `nearfar.distributed`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nearfar.contrast import far, near_mean, products
from nearfar.distributed import columns, gather, share
from nearfar.losses.groups import equal_ids, foreign, or_positive
from nearfar.losses.supervised import identity
from nearfar.losses.synthetic import hardest


def class_weights(counts: Sequence[int], beta: float) -> Tensor:
    """Weights that make up for the sizes of classes: the mean effective number over that of each class: C.

        w_c = mean_c'(E_c') / E_c,    E_c = (1 - beta^n_c) / (1 - beta)

    counts: n, the labeled samples of each class; a class without one counts as if it had one.  beta: in [0, 1); with
    0 all weights are 1, and near 1 they go as 1 / n.  Cui et al. 2019, arXiv 1901.05555.
    """
    if not 0 <= beta < 1:
        raise ValueError(f"beta of the effective number is {beta}; wanted: 0 or more, and below 1")
    effective = 1 - torch.tensor(beta, dtype=torch.float64) ** torch.tensor(counts).clamp(min=1)
    return (effective.mean() / effective).float()


@torch.no_grad()
def mine(
    z: Tensor,
    label: Tensor,
    queue: Tensor,
    of_queue: Tensor,
    *,
    positives: int,
    negatives: int,
    groups: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """The least similar keys of each row's class, and the most similar of other classes: columns R x P and R x Q.

    z: R x D; label: R, int64, or MISSING.  queue: K x D, the same number of every class, which stand together in their
    order, as in `ClassQueue`; of_queue: K, their classes.  Of fewer keys than are asked for, all are taken.
    groups: of rows and keys; a key of the row's group is no negative.  -1 where there is none, as for rows without a
    label.
    """
    known, slots = (label >= 0)[:, None], int((of_queue == of_queue[0]).sum())
    of_class = label.clamp(min=0)[:, None] * slots + torch.arange(slots, device=z.device)  # R x slots
    s = products(z, queue[of_class])
    hard = of_class.gather(1, s.topk(min(positives, slots), largest=False).indices)
    count = min(negatives, len(queue) - slots)
    near = hardest(z, queue, count, (label, of_queue))[0]
    if groups is not None:
        near = near.masked_fill(equal_ids(groups[0][:, None], groups[1][near]), -1)
    return hard.masked_fill(~known, -1), near.masked_fill(~known, -1)


def supcon_mined(
    views: list[Tensor],
    label: Tensor,
    queue: Tensor,
    mined: tuple[Tensor, Tensor],
    *,
    temperature: float | Tensor,
    weight: Tensor | None = None,
    group: Tensor | None = None,
) -> Tensor:
    """SupCon whose candidates are the batch, and the keys of a queue that were mined for each row.

        loss_i = w_i (log sum_{j in B_i + P_i + N_i} exp(s_ij) - mean_p s_ip)

    views: V tensors, N x D; label: N, int64, or MISSING: such a sample has its own other views as positives.  queue:
    K x D.  mined: hard positives P_i and hard negatives N_i of the VN rows, columns of the queue, or -1, from `mine`.
    B_i are all other rows of the batch, p its rows of the class, and P_i.  weight: C, w of each class; 1 for rows
    without a label, and for all if None.  group: N, or MISSING; rows of one group that are no positives are no
    negatives.  The mean over VN rows.
    Zhong et al. 2022, arXiv 2203.11506.
    """
    z, ids = torch.cat(views), identity(label).repeat(len(views))
    keys, both, own = gather(z), (ids, gather(ids)), columns(z)
    rule = None
    if group is not None:
        mine = group.repeat(len(views))
        rule = or_positive(foreign(mine, gather(mine)), both)
    z = z / temperature
    pull, count = near_mean(z, keys, both, own=own)
    hard = mined[0].shape[1]
    where = torch.cat(mined, 1)  # VN x P + Q
    # Each row has candidates of its own, so `far`, whose columns are everybody's, is no help.
    s = products(z, queue[where.clamp(min=0)]).masked_fill(where < 0, -torch.inf)
    filled = (where[:, :hard] >= 0).to(s.dtype)
    total = pull * count + torch.where(filled > 0, s[:, :hard], 0).sum(1)
    pull = total / (count + filled.sum(1)).clamp(min=1)
    push = torch.cat([far(z, keys, skip=own, rule=rule)[:, None], s], 1).logsumexp(1)
    if weight is None:
        return share(push - pull, count > 0)
    weight = torch.where(label < 0, 1, weight[label.clamp(min=0)]).repeat(len(views))
    return share(weight * (push - pull), count > 0)
