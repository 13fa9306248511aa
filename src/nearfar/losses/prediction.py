"""Losses of pretext tasks: what was done to an image, or what was taken from it, is predicted.

With W ranks, a rank returns its share of the mean over the rows of all ranks (see `nearfar.distributed`).
"""

from __future__ import annotations

from torch import Tensor

from nearfar.distributed import share
from nearfar.losses.classification import cross_entropy, single


def classify(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy: the mean of  -log softmax(logits)_target.

    logits: ... x K; target: ..., int64. Equal logits give log K.
    """
    return cross_entropy(logits.flatten(0, -2), target.flatten())


def solved(logits: Tensor, target: Tensor) -> Tensor:
    """How often the largest logit is that of the target, 0 to 1: this rank's share, without gradient.

    logits, target: as in `classify`; where the target is MISSING, a row is not counted.
    """
    return share((logits.detach().argmax(-1) == target).float().flatten(), (target >= 0).flatten())


def weighted_classes(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Cross entropy with soft targets and weighted rows: the mean of  -w_i sum_k t_ik log softmax(logits_i)_k.

    logits, target: ... x K, targets being rows that sum to 1; weight: .... The mean is over all rows, as in the paper,
    so that weights of mean 1 leave its size; equal logits give the mean weight times log K.
    Zhang et al. 2016, arXiv 1603.08511.
    """
    picked = (target * single(logits).log_softmax(-1)).sum(-1)
    return share(-(weight * picked).flatten())
