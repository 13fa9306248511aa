"""Losses of a classifier. A sample without a label takes no part in them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.distributed import share, total, world


def cross_entropy(logits: Tensor, label: Tensor, *, log_prior: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """-log softmax(logits + log_prior)_y, the mean over the rows that have a label; 0 where none has.

    logits: N x C; label: N, int64, or MISSING.  log_prior: C, from `log_prior`; with it this is the balanced softmax,
    whose logits say what classes look like and not how frequent they are.  smoothing: of the targets.
    Ren et al. 2020, arXiv 2007.10740.
    """
    logits = single(logits)
    logits = logits if log_prior is None else logits + log_prior.to(logits.dtype)
    loss = F.cross_entropy(logits, label.clamp(min=0), reduction="none", label_smoothing=smoothing)
    return share(loss, label >= 0)


def mixed_cross_entropy(logits: Tensor, label: Tensor, other: Tensor, own: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """The mean over rows of own_i of the cross-entropy with class label_i, and 1 - own_i of that with class other_i.

    logits: N x C; label, other: N, int64; own: N, shares of mixed rows.  smoothing: of the targets.
    Zhang et al. 2017, arXiv 1710.09412.
    """
    logits = single(logits)
    first, second = (F.cross_entropy(logits, of, reduction="none", label_smoothing=smoothing) for of in (label, other))
    return share(own * first + (1 - own) * second)


def per_token(lost: Tensor, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
    """The mean over all tokens of texts, of minus the log-probability of each; 0 where no text is kept.

    lost: N, its sum over the tokens of each text.  tokens: N, int64, how many these are.  keep: N, bool, which texts
    take part.
    """
    if keep is not None:
        lost, tokens = torch.where(keep, lost, torch.zeros_like(lost)), tokens * keep
    return lost.sum() * world() / total(tokens.sum().to(lost.dtype)).clamp(min=1)


def single(logits: Tensor) -> Tensor:
    """Logits in single precision, or in double where they are."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def log_prior(counts: Sequence[int]) -> Tensor:
    """The logarithm of each class's share of the labeled samples: C. A class without one counts as a billionth."""
    known = torch.tensor(counts, dtype=torch.float64)
    return (known / known.sum().clamp(min=1)).clamp(min=1e-9).log().float()
