"""The loss of ReLIC: instances are told apart, and two views must be mistaken for the same others."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from nearfar.distributed import share


def relic(logits: Tensor, other: Tensor, *, beta: float = 1.0, first: Literal["own", "other"] = "own") -> Tensor:
    """A cross-entropy, and a divergence between the distributions over candidates that two views give.

        loss_i = -log p_i0 + beta KL(p_i || q_i),    p_i = softmax(logits_i),  q_i = softmax(other_i)

    logits: N x (1 + M), products over the temperature, the first column the positive; -inf for no candidate. other: the
    same candidates for another view, which passes no gradient.  first: in the divergence, "own", as above and in the
    paper, or "other", KL(q_i || p_i), which pulls as a cross-entropy to soft targets. Equal logits give log(1 + M).
    Mitrovic et al. 2020, arXiv 2010.07922; Tomasev et al. 2022, arXiv 2201.05119.
    """
    log_p, log_q = logits.log_softmax(1), other.detach().log_softmax(1)
    left, right = (log_p, log_q) if first == "own" else (log_q, log_p)
    # Where there is no candidate both are -inf, and their difference is nothing.
    gap = (left - right).masked_fill(logits.isneginf(), 0)
    return share(beta * (left.exp() * gap).sum(1) - log_p[:, 0])
