"""One unit vector for each training sample, the same on every rank."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nearfar.batch import MISSING
from nearfar.distributed import gather, normalize
from nearfar.ranges import PositiveInt, checked


class Bank(nn.Module):
    """A memory of `samples` rows of `dim` numbers, each blended with what its sample gives when it is seen.

    It starts as random unit rows, drawn from torch's global generator: ranks seeded alike hold alike.
    Instance discrimination, arXiv 1805.01978.
    """

    rows: Tensor  # samples x dim, unit rows
    seen: Tensor  # samples, bool, whether a row was ever written
    group: Tensor  # samples, int64, or MISSING: known of the rows that were written
    moved: Tensor  # (), a reading of the last write, no state: see `drift`

    @checked
    def __init__(self, samples: PositiveInt, dim: PositiveInt) -> None:
        super().__init__()
        self.register_buffer("rows", normalize(torch.randn(samples, dim)))
        self.register_buffer("seen", torch.zeros(samples, dtype=torch.bool))
        self.register_buffer("group", torch.full((samples,), MISSING))
        self.register_buffer("moved", torch.tensor(torch.nan), persistent=False)

    @torch.no_grad()
    def write(self, index: Tensor, v: Tensor, *, keep: float = 0.0, group: Tensor | None = None) -> None:
        """rows <- normalize(keep * rows + (1 - keep) * v), for the samples `index` (N) of every rank.

        v: N x dim; group: N, of these samples, if there are any.
        """
        index, v = gather(index), gather(v.detach()).to(self.rows.dtype)
        before, known = self.rows[index], self.seen[index]
        self.moved = 1 - ((before * normalize(v)).sum(1) * known).sum() / known.sum()  # NaN where none was known
        self.rows[index] = normalize(keep * before + (1 - keep) * v)
        self.seen[index] = True
        if group is not None:
            self.group[index] = gather(group)

    def drift(self) -> Tensor | None:
        """How far the encoder has moved since the rows that were written last had been written before; None if never.

        1 - the mean cosine of what their samples give now with what was held of them: 0 where nothing has moved.
        """
        return None if self.moved.isnan() else self.moved
