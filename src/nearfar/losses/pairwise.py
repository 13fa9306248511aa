"""Losses with one positive for each anchor.

Rows are of unit length. With W ranks, a rank contrasts its own rows with those of all ranks and returns its share of
the mean (see `nearfar.distributed`). `group`, N, int64, or MISSING: rows of one group are not each other's negatives.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from nearfar.batch import MISSING
from nearfar.contrast import far, far_both, near, products
from nearfar.distributed import columns, gather, share, world

BLOCK = 2**22
"""Pairs that are held at a time where each is judged by itself."""


def nt_xent(
    z1: Tensor,
    z2: Tensor,
    *,
    temperature: float | Tensor,
    group: Tensor | None = None,
    queue: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """NT-Xent: each of the 2N rows finds its other view among the 2N - 1 others.

        loss_i = -s_ip + log sum_{j != i} exp(s_ij),    s_ij = z_i . z_j / temperature

    z1, z2: N x D, the two views. The mean over 2N rows, as in the paper; the released code returns twice that.
    queue: K x D, further negatives, the same on all ranks, and their groups, K: columns j of the sum (SimCLRv2).
    Equal rows give log(2N - 1 + K). Chen et al. 2020, arXiv 2002.05709.
    """
    z = torch.cat([z1, z2]) * temperature**-0.5  # 2N x D
    keys = gather(z)  # W2N x D
    own = columns(z)
    partner = own.roll(len(z1))
    pull = near(z, keys, partner)
    if group is None:
        push = far(z, keys, skip=own)
    else:
        others = far(z, keys, skip=torch.stack([own, partner], 1), exclude_same=_both(group.repeat(2)))
        push = torch.logaddexp(pull, others)
    if queue is not None:
        apart = None if group is None else (group.repeat(2), queue[1])
        push = torch.logaddexp(push, far(z * temperature**-0.5, queue[0], exclude_same=apart))
    return share(push - pull)


def dcl(
    z1: Tensor,
    z2: Tensor,
    *,
    temperature: float | Tensor,
    sigma: float | None = None,
    group: Tensor | None = None,
) -> Tensor:
    """Decoupled contrastive loss: NT-Xent whose denominator leaves out the positive. It can be negative.

        loss_i = -w_i s_ip + log sum_{j != i, p} exp(s_ij),    s_ij = z_i . z_j / temperature

    z1, z2: N x D, the two views, of at least 2 samples on all ranks together. The mean over 2N rows; the paper adds the
    two directions, which is twice that. Equal rows give log(2N - 2). w_i is 1; with sigma (DCLW) it is
    2 - exp(z_i . z_p / sigma) / mean_j exp(z_j . z_p(j) / sigma), of mean 1, and the gradient passes through it.
    Yeh et al. 2021, arXiv 2110.06848.
    """
    z = torch.cat([z1, z2]) * temperature**-0.5  # 2N x D
    keys = gather(z)  # W2N x D
    if len(keys) < 4:
        raise ValueError("dcl has no negatives with 1 sample; it wants at least 2")
    own = columns(z)
    partner = own.roll(len(z1))
    apart = None if group is None else _both(group.repeat(2))
    others = far(z, keys, skip=torch.stack([own, partner], 1), exclude_same=apart)
    pull = near(z, keys, partner)
    if sigma is not None:
        likeness = pull * (temperature / sigma)
        every = gather(likeness)
        pull = pull * (2 - (likeness - every.logsumexp(0)).exp() * len(every))
    return share(others - pull, None if group is None else others.isfinite())


def info_nce(
    q: Tensor, k: Tensor, queue: Tensor, *, temperature: float | Tensor, groups: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """InfoNCE against a queue: each query finds its key among K negatives. Other keys of the batch are not negatives.

        loss_i = -s_i + log(exp(s_i) + sum_j exp(q_i . queue_j / temperature)),    s_i = q_i . k_i / temperature

    q, k: N x D; queue: K x D, the same on all ranks; groups: of the queries and of the queue, N and K. Equal rows give
    log(1 + K), an empty queue 0.
    He et al. 2019, arXiv 1911.05722.
    """
    q = q / temperature
    pull = near(q, k, torch.arange(len(q), device=q.device))
    return share(torch.logaddexp(pull, far(q, queue, exclude_same=groups)) - pull)


def info_nce_batch(
    q: Tensor,
    k: Tensor,
    *,
    temperature: float | Tensor,
    group: Tensor | None = None,
    positive_below: bool = True,
) -> Tensor:
    """InfoNCE inside the batch: each query finds its key among the keys of all queries.

        loss_i = -q_i . k_i / temperature + log sum_j exp(q_i . k_j / temperature)

    q, k: N x D. Equal rows give log N. One direction; CLIP and MoCo v3 take both.
    positive_below: whether the sum has j = i; without it (GraphCL, arXiv 2010.13902) the loss can be negative, equal
    rows give log(N - 1), and 2 samples on all ranks together are wanted.
    van den Oord et al. 2018, arXiv 1807.03748.
    """
    q, keys = q / temperature, gather(k)
    own = columns(q)
    pull = near(q, keys, own)
    if not positive_below:
        if len(keys) < 2:
            raise ValueError("without the positive below there are no candidates with 1 sample; it wants at least 2")
        others = far(q, keys, skip=own, exclude_same=None if group is None else _both(group))
        return share(others - pull, None if group is None else others.isfinite())
    if group is None:
        return share(far(q, keys) - pull)
    return share(torch.logaddexp(pull, far(q, keys, skip=own, exclude_same=_both(group))) - pull)


def hard_info_nce(
    q: Tensor,
    k: Tensor,
    *hard: Tensor,
    temperature: float | Tensor,
    weight: float = 0.0,
    group: Tensor | None = None,
) -> Tensor:
    """InfoNCE inside the batch with hard negatives: each query finds its key among all keys and all hard negatives.

        loss_i = -s(q_i, k_i) + log(sum_j exp s(q_i, k_j) + sum_j exp(s(q_i, h_j) + [j = i] weight))

    with s the product divided by the temperature.  q, k: N x D.  hard: any number of N x D, of each query.
    weight: added to the logit of a query's own hard negatives.  Equal rows give log(N (1 + number of hard)), where
    weight is 0.  Without hard negatives it is `info_nce_batch`.
    Gao et al. 2021, arXiv 2104.08821; in sentence-transformers it is the multiple negatives ranking loss.
    """
    q = q / temperature
    own, apart = columns(q), None if group is None else _both(group)
    keys = gather(k)
    pull = near(q, keys, own)
    push = [pull, far(q, keys, skip=own, exclude_same=apart)]
    for rows in hard:
        others = gather(rows)
        mine = (q * rows.to(q.dtype)).sum(1) + weight
        push += [mine, far(q, others, skip=own, exclude_same=apart)]
    return share(torch.stack(push).logsumexp(0) - pull)


def clip(q: Tensor, k: Tensor, *, temperature: float | Tensor, group: Tensor | None = None) -> Tensor:
    """InfoNCE inside the batch in both directions, of pairs such as an image and its caption: CLIP, MoCo v3.

        loss = (info_nce_batch(q, k) + info_nce_batch(k, q)) / 2

    q, k: N x D. Equal rows give log N. In one process each product is made once for both directions.
    Radford et al. 2021, arXiv 2103.00020.
    """
    if world() > 1 or group is not None:
        one, other = (info_nce_batch(x, y, temperature=temperature, group=group) for x, y in ((q, k), (k, q)))
        return (one + other) / 2
    q = q / temperature
    pull = near(q, k, torch.arange(len(q), device=q.device))
    rows, columns = far_both(q, k)
    return (share(rows - pull) + share(columns - pull)) / 2


def siglip(
    q: Tensor, k: Tensor, *, temperature: float | Tensor, bias: float | Tensor, group: Tensor | None = None
) -> Tensor:
    """Each pair of a query and a key is judged by itself, whether they belong together: SigLIP.

        loss_i = -sum_j log sigmoid(y_ij (q_i . k_j / temperature + bias)),    y_ij = 1 for i = j, else -1

    q, k: N x D.  The mean over N rows. A block of rows at a time is held, and made again for the gradient.
    Zhai et al. 2023, arXiv 2303.15343.
    """
    q, keys = q / temperature, gather(k)
    own, apart = columns(q), None if group is None else _both(group)
    bias = torch.as_tensor(bias, dtype=q.dtype, device=q.device)

    def judged(rows: Tensor, own: Tensor, groups: Tensor | None, keys: Tensor, bias: Tensor) -> Tensor:
        logit = products(rows, keys) + bias
        place = torch.arange(len(keys), device=own.device) == own[:, None]
        cost = torch.nn.functional.softplus(torch.where(place, -logit, logit))
        if groups is not None and apart is not None:
            same = (groups[:, None] == apart[1]) & (groups != MISSING)[:, None]
            cost = cost.masked_fill(same & ~place, 0.0)
        return cost.sum(1)

    size = max(1, BLOCK // len(keys))
    groups = [None] * len(q) if apart is None else apart[0].split(size)
    parts = zip(q.split(size), own.split(size), groups, strict=False)
    return share(torch.cat([checkpoint(judged, *part, keys, bias, use_reentrant=False) for part in parts]))


def _both(group: Tensor) -> tuple[Tensor, Tensor]:
    """The groups of this rank's rows, and of all."""
    return group, gather(group)
