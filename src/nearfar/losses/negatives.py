"""Losses that weigh negatives by how hard they are, or correct them for being of the anchor's own class.

Weights that are powers of the exponentials need no matrix: a sum of powers is `far` at another temperature, and a
corrected sum is the logarithm of a difference. Rows are of unit length. With W ranks, a rank contrasts its own rows
with those of all ranks (see `nearfar.distributed`). `group`, N, int64, or MISSING: rows of one group are not each
other's negatives.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nearfar.contrast import far, near
from nearfar.distributed import gather, local, share


def hcl(
    z1: Tensor,
    z2: Tensor,
    *,
    temperature: float | Tensor,
    beta: float = 1.0,
    tau_plus: float = 0.1,
    group: Tensor | None = None,
) -> Tensor:
    """NT-Xent whose N negatives are tilted toward the hard ones, and corrected for those that are none.

        loss_i = -log pos_i / (pos_i + Ng_i),    e_ij = exp(z_i . z_j / temperature),    pos_i = e_ip
        Ng_i = max((R_i - tau_plus N pos_i) / (1 - tau_plus), N exp(-1 / temperature))
        R_i = N sum_j e_ij^(1 + beta) / sum_j e_ij^beta,    over the j that are neither i nor p

    z1, z2: N x D, the two views. beta >= 0, on the scale of z_i . z_j / temperature.  0 <= tau_plus < 1, the share of
    negatives that are of the anchor's class. The gradient passes through the weights and through pos in Ng, and stops
    where the lower bound holds. beta 0 is the debiased loss (Chuang et al. 2020, arXiv 2007.00224), tau_plus 0 with it
    NT-Xent. Equal rows give log(2N - 1). Robinson et al. 2021, arXiv 2010.04592.
    """
    if beta < 0 or not 0 <= tau_plus < 1:
        raise ValueError(f"hcl wants beta of 0 or more and tau_plus from 0 to below 1, not {beta} and {tau_plus}")
    rows = gather(torch.cat([z1, z2]))  # W2N x D
    own = local(torch.arange(len(rows), device=rows.device))
    partner = own.roll(len(z1))
    every = None if group is None else gather(group.repeat(2))

    def push(power: float) -> Tensor:  # log sum_j e_ij^power
        scaled = rows * (power / temperature) ** 0.5
        apart = None if every is None else (local(every), every)
        return far(local(scaled), scaled, skip=torch.stack([own, partner], 1), exclude_same=apart)

    pull = near(local(rows) / temperature, rows, partner)
    count = len(rows) - 2 + 0 * own if every is None else len(rows) - local(group_sizes(every, alone=2))  # 2N
    log_n = count.clamp(min=1).to(pull.dtype).log()
    log_r = log_n + push(1 + beta) - push(beta) if beta else push(1.0)
    others = torch.where(count > 0, log_r, 0)
    if tau_plus:
        others = _corrected(others, pull + log_n, tau_plus, log_n - 1 / temperature)
    return share(torch.logaddexp(pull, torch.where(count > 0, others, -math.inf)) - pull)


def _corrected(log_r: Tensor, log_pos: Tensor, tau_plus: float, least: Tensor) -> Tensor:
    """log of max((R - tau_plus pos) / (1 - tau_plus), exp(least)), from the logarithms of R and pos."""
    taken = log_pos + math.log(tau_plus) - log_r  # the log of the part of R that is taken away
    with torch.no_grad():
        above = log_r + (-taken.clamp(max=0).expm1()).log() - math.log1p(-tau_plus) > least
    # Elsewhere the logarithm is not taken at all: its gradient could be infinite, and times nothing would not be 0.
    left = log_r + (-torch.where(above, taken, -1).expm1()).log() - math.log1p(-tau_plus)
    return torch.where(above, left, least)


def renyi(
    sources: list[Tensor],
    target: Tensor,
    *,
    temperature: float | Tensor,
    gamma: float = 2.0,
    alpha: float = 2**-16,
    group: Tensor | None = None,
) -> Tensor:
    """Minus a lower bound of the skew Renyi divergence of order gamma between pairs of one sample and of any two.

        L = 1/gamma log(alpha mean exp(gamma s_pos) + (1 - alpha) mean exp(gamma s_neg))
            - 1/(gamma - 1) log mean exp((gamma - 1) s_pos),    s_ij = q_i . k_j / temperature

    sources: V tensors, N x D; target: N x D, detached by the caller. Positives are the rows of one sample, negatives
    all other pairs of a source and a target. The means are over the pairs of all ranks, not per anchor; every rank
    returns the whole. gamma > 0; at 1 the second term is the mean of s_pos.  0 <= alpha < 1, the skew. Equal rows give
    0. The released code shows another number, of the same gradient. Lee and Shin 2022, arXiv 2208.06270.
    """
    if gamma <= 0 or not 0 <= alpha < 1:
        raise ValueError(f"renyi wants gamma above 0 and alpha from 0 to below 1, not {gamma} and {alpha}")
    q, keys = torch.cat(sources) / temperature, gather(target)  # VN x D, WN x D
    own = local(torch.arange(len(keys), device=keys.device)).repeat(len(sources))
    pull = gather(near(q, keys, own))  # WVN
    every = None if group is None else gather(group)
    pairs = len(keys) * (len(keys) - 1) if every is None else int((len(keys) - group_sizes(every)).sum())
    parts = [math.log(alpha) + _log_mean(gamma * pull, len(pull))] if alpha else []
    if pairs:
        apart = None if every is None else (local(every).repeat(len(sources)), every)
        push = gather(far(gamma * q, keys, skip=own, exclude_same=apart))  # WVN
        parts.append(math.log1p(-alpha) + _log_mean(push, pairs * len(sources)))
    if not parts:
        raise ValueError("renyi with alpha 0 wants negatives: at least 2 samples that are not of one group")
    drawn = pull.mean() if gamma == 1 else _log_mean((gamma - 1) * pull, len(pull)) / (gamma - 1)
    return torch.stack(parts).logsumexp(0) / gamma - drawn


def _log_mean(x: Tensor, count: int) -> Tensor:
    """log of the sum of exp(x), divided by count."""
    return x.logsumexp(0) - math.log(count)


def group_sizes(ids: Tensor, *, alone: int = 1) -> Tensor:
    """How many of the rows have the id of each row, itself among them; `alone` where it has none. N -> N, int64."""
    _, code, count = torch.unique(ids, return_inverse=True, return_counts=True)
    return torch.where(ids < 0, alone, count[code])
