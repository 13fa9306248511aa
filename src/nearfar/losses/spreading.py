"""The loss of invariant and spreading embeddings: instances are told apart one by one, not only by a softmax."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.contrast import products
from nearfar.distributed import columns, gather, share
from nearfar.losses.groups import equal_ids


def spreading(
    z1: Tensor,
    z2: Tensor,
    *,
    temperature: float | Tensor,
    weight: float = 1.0,
    weight_below: bool = False,
    group: Tensor | None = None,
) -> Tensor:
    """Each of the 2N rows is to be taken for its other view p, and for none of the rest.

        loss_i = -log p_ip - weight sum_{j != i, p} log(1 - p_ij),    p_ij = exp(s_ij) / sum_{k != i} exp(s_ik)

    z1, z2: N x D, of unit length, the two views; s_ij = z_i . z_j / temperature. As in the released code, z_j passes no
    gradient. The mean over 2N rows.  weight_below: as the released code does, the weight also multiplies, in the
    denominator of p_ij, the terms of all k but p; at weight 1 there is no difference.  group: N, or MISSING; rows of
    one group are not told apart.
    Ye et al. 2019, arXiv 1904.03436.
    """
    z = torch.cat([z1, z2])  # 2N x D
    own = columns(z)
    partner = own.roll(len(z1))[:, None]
    # The matrix is held, 2N x W2N: each pair has a logarithm of its own.
    logits = products(z, gather(z.detach())) / temperature
    hidden = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, own[:, None], True)
    if group is not None:
        group = group.repeat(2)
        hidden |= equal_ids(group[:, None], gather(group))
        hidden.scatter_(1, partner, False)
    logits = logits.masked_fill(hidden, -torch.inf)
    below = logits
    if weight_below:
        below = (logits + torch.tensor(weight).log()).scatter(1, partner, logits.gather(1, partner))
    log_p = logits - below.logsumexp(1, keepdim=True)
    pull = log_p.gather(1, partner)[:, 0]
    apart = torch.log1p(-log_p.exp().scatter(1, partner, 0).clamp(max=1 - 1e-6)).sum(1)
    return share(-pull - weight * apart)
