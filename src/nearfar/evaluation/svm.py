"""The protocol of unsupervised graph learning: a support vector machine on the representation as it is.

As in GraphCL's code (arXiv 2010.13902) and those before it: radial kernel, its width from the variance of the training
rows, C from 0.001 to 1000 by five inner folds. The inner folds share the kernel of all training rows of a split, where
the published code makes each inner part a kernel of its own width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nearfar.data.splits import folds
from nearfar.errors import UserError

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3)
"""What C is chosen from; of equal ones the first."""

INNER = 5
"""Folds of the training rows."""


def svm_answers(
    x: Tensor,
    y: Tensor,
    test: Tensor,
    *,
    group: Tensor | None = None,
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
) -> tuple[Tensor, dict[str, Any], list[str]]:
    """The class of each test row, N int64; what was chosen, and what is to be said.

    x: M x D and y: M, int64, to learn from.  group: M, rows that are on one side of each inner fold.
    """
    from sklearn.svm import SVC

    learn, truth = x.double().cpu(), y.cpu().numpy()
    gamma = 1 / (x.shape[1] * float(learn.var(correction=0)) or 1.0)

    def kernel(a: Tensor) -> np.ndarray:
        # float64, by the products: cdist without them takes ten times as long
        square = torch.cdist(a, learn, compute_mode="use_mm_for_euclid_dist").square()
        return (-gamma * square).exp().numpy()

    own, notes = kernel(learn), []
    right = np.zeros(len(strengths))
    try:
        inner = [(a.numpy(), b.numpy()) for a, b in folds(y.cpu(), group, folds=INNER, seed=seed)]
    except UserError:
        inner = []
        notes.append("C is 1: there are too few labels to choose it.")
    for a, b in inner:
        within, across = own[np.ix_(a, a)], own[np.ix_(b, a)]
        if len(np.unique(truth[a])) < 2:
            continue
        for k, strength in enumerate(strengths):
            right[k] += (SVC(C=strength, kernel="precomputed").fit(within, truth[a]).predict(across) == truth[b]).sum()
    best = strengths[int(right.argmax())] if inner else 1.0
    if len(np.unique(truth)) < 2:
        return torch.full((len(test),), int(truth[0])), {"C": best}, notes
    machine = SVC(C=best, kernel="precomputed").fit(own, truth)
    return torch.from_numpy(machine.predict(kernel(test.double().cpu()))), {"C": best}, notes
