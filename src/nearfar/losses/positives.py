"""Contrast with a queue in which each query has a given number of positives, whatever the size of its class.

label and of_queue: of the queries and of the keys in the queue, N and K, int64, or MISSING, which is no class.
(KCL, Kang et al. 2021.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.contrast import Ids, far, near, products
from nearfar.distributed import share
from nearfar.losses.groups import foreign


def chosen(label: Tensor, of_queue: Tensor, count: int, draws: Tensor | None = None) -> Tensor:
    """Up to `count` keys of each query's class: columns of the queue, N x count, -1 where there are no more.

    draws: N x count, uniform in [0, 1): every set is as likely, by Floyd's sampling. None: the first of the class.
    """
    order = of_queue.argsort(stable=True)  # classes stand together
    start, size = _class(label, of_queue[order])
    if draws is None:
        place = torch.arange(count, device=label.device).expand(len(label), -1)
        place = torch.where(place < size[:, None], place, -1)
    else:
        place = torch.full_like(draws, -1, dtype=torch.long)  # N x count
        for turn in range(count):
            # A place up to `last` is drawn, and where that was taken before, `last` is. A class of fewer keys than
            # count has none in the first turns, and all in the others.
            last = size - count + turn  # N
            drawn = torch.minimum((draws[:, turn] * (last + 1)).long(), last)
            again = (place[:, :turn] == drawn[:, None]).any(1)
            place[:, turn] = torch.where(last < 0, -1, torch.where(again, last, drawn))
    column = order[(start[:, None] + place).clamp(0, len(order) - 1)]
    return torch.where(place < 0, -1, column)


def info_nce_chosen(
    q: Tensor,
    k: Tensor,
    queue: Tensor,
    columns: Tensor,
    ids: Ids,
    *,
    temperature: float | Tensor,
    constant: bool = False,
    groups: Ids | None = None,
) -> Tensor:
    """InfoNCE with several positives: the mean over the own key and the chosen ones, told from the whole queue.

        loss_i = -(s_i + sum_{j in S_i} s_ij) / (1 + |S_i|) + log(exp(s_i) + sum_j exp(s_ij))

    q, k: N x D; queue: K x D, the same on all ranks; columns: N x count, S_i, from `chosen`.  ids: labels of queries
    and queue.  Other keys of the query's class are negatives; constant: each is a 1 in the sum instead, as released.
    groups: likewise; keys of one group that are not chosen are not negatives.  Equal rows give log(1 + K).
    """
    q = q / temperature
    own, filled = near(q, k, torch.arange(len(q), device=q.device)), columns >= 0
    # The positives of a query are its own, so `far`, whose columns are everybody's, is no help: N x count.
    s = products(q, queue[columns.clamp(min=0)])
    pull = (own + (s * filled).sum(1)) / (1 + filled.sum(1))
    push = torch.cat([own[:, None], s.masked_fill(~filled, -torch.inf)], 1).logsumexp(1)
    if constant:
        left = _class(ids[0], ids[1].sort().values)[1] - filled.sum(1)
        push = torch.logaddexp(push, left.to(push.dtype).log())
        rule = None if groups is None else foreign(*groups)
        return share(torch.logaddexp(push, far(q, queue, exclude_same=ids, rule=rule)) - pull)
    return share(torch.logaddexp(push, far(q, queue, skip=columns, exclude_same=groups)) - pull)


def _class(label: Tensor, ordered: Tensor) -> tuple[Tensor, Tensor]:
    """Where the class of each query begins among ordered labels, and how many keys are of it: N and N."""
    start, stop = (torch.searchsorted(ordered, label, right=right) for right in (False, True))
    return start, (stop - start) * (label >= 0)
