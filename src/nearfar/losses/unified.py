"""One softmax over classes, clusters and single samples, for rows of two domains."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.contrast import Ids, far, near
from nearfar.distributed import share


def unified(
    f: Tensor,
    prototypes: Tensor,
    column: Tensor,
    *,
    temperature: float | Tensor,
    source: Tensor | None = None,
    groups: Ids | None = None,
) -> Tensor:
    """Each row finds its own prototype, be it of a class, of a cluster or of a sample alone, among all of them.

        loss_i = -f_i . c_own / temperature + log sum_l exp(f_i . c_l / temperature)

    f: N x D, unit rows, which alone learn.  prototypes: L x D, the same on all ranks; means of unit rows, so that a
    loose cluster pushes less.  column: N, int64, the own prototype of each row.  source: N, bool: the mean over these
    rows is added to that over the others, and either is 0 where there are none.  groups: of the rows and of the
    prototypes, int64, or MISSING: those of one group that are not a row's own are left out.
    Equal prototypes give log L for each domain. The released code adds 1e-6 to the denominator and in the logarithm,
    which are left out. Ge et al. 2020, arXiv 2006.02713.
    """
    q = f / temperature
    pull = near(q, prototypes, column)
    loss = torch.logaddexp(pull, far(q, prototypes, skip=column, exclude_same=groups)) - pull
    return share(loss) if source is None else share(loss, source) + share(loss, ~source)
