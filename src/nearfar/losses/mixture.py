"""InfoNCE by several experts, of which a gate chooses one for each sample."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.contrast import Ids, far
from nearfar.distributed import share


def mixture_nce(
    q: Tensor, v: Tensor, queue: Tensor, gate: Tensor, *, temperature: float, groups: Ids | None = None
) -> tuple[Tensor, Tensor]:
    """The probability that a mixture of K experts finds the key, as a loss; and the posterior of the experts, N x K.

        loss_i = -log sum_k pi_ik phi_ik        phi_ik = exp(s_ik) / (exp(s_ik) + sum_j exp(s_ikj))

    q, v: N x K x D, the query and the key of each expert; queue: M x K x D, the same on all ranks.  s: products of
    queries with keys, and with the queue, over temperature.  gate: N x K, log pi.  groups: of the queries and of the
    queue, N and M; those of one group are not pushed apart.
    It is the evidence bound of MiCE with its posterior pi phi / sum pi phi, at which the bound is tight.
    Tsai et al. 2021, arXiv 2105.01899.
    """
    joint = []
    for k in range(q.shape[1]):
        one = q[:, k] / temperature  # N x D
        pull = (one * v[:, k]).sum(1)
        joint.append(gate[:, k] + pull - torch.logaddexp(pull, far(one, queue[:, k], exclude_same=groups)))
    logits = torch.stack(joint, 1)  # N x K, log pi phi
    return share(-logits.logsumexp(1)), logits.detach().softmax(1)
