"""What a student learns from a teacher's probabilities."""

from __future__ import annotations

from torch import Tensor

from nearfar.distributed import share
from nearfar.losses.classification import cross_entropy


def distillation(
    logits: Tensor,
    teacher: Tensor,
    *,
    temperature: float = 1.0,
    label: Tensor | None = None,
    alpha: float = 1.0,
    scaled: bool = False,
) -> Tensor:
    """alpha times  -sum_y P_T(y) log P_S(y),  with P = softmax(logits / temperature), the mean over rows.

    The least it can be is the teacher's entropy, where both say the same; the gradient of a row's logits is
    (P_S - P_T) / (temperature N).
    logits, teacher: N x C; the teacher's get no gradient.  label: N, int64, or MISSING: adds 1 - alpha times the
    cross-entropy of the rows that have one.  scaled: times temperature^2, as the released code has it; the paper has
    not, and at 1 it is the same.
    Chen et al. 2020, arXiv 2006.10029; Hinton et al. 2015, arXiv 1503.02531.
    """
    target = (teacher.detach() / temperature).softmax(1)
    loss = share(-(target * (logits / temperature).log_softmax(1)).sum(1))
    loss = alpha * (temperature**2 if scaled else 1) * loss
    return loss if label is None or alpha == 1 else loss + (1 - alpha) * cross_entropy(logits, label)
