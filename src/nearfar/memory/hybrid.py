"""One memory for classes that are known and for samples that are not: rows that make the columns of one softmax."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.distributed import gather, normalize
from nearfar.memory.bank import Bank
from nearfar.memory.turns import in_turns


class Centroids(NamedTuple):
    """centroids: L x dim, no unit rows.  column: samples, int64, which of them is each sample's own.

    group: L, int64, that of all rows behind a centroid, or MISSING where they have none or several.
    """

    centroids: Tensor
    column: Tensor
    group: Tensor


class Hybrid(Bank):
    """A row for each of `classes`, the source domain, then one for each of `samples`, of which the target's are used.

    It starts as random unit rows, each sample being of the target and an identity of its own. SpCL, arXiv 2006.02713.
    """

    identity: Tensor  # classes + samples, int64: rows of one are one prototype; MISSING where a row is not used
    place: Tensor  # samples, int64, the row of each sample

    def __init__(self, samples: int, classes: int, dim: int) -> None:
        super().__init__(classes + samples, dim)
        self.classes = classes
        self.register_buffer("identity", torch.arange(classes + samples))
        self.register_buffer("place", classes + torch.arange(samples))
        self.identity[:classes] = MISSING

    @property
    def source(self) -> Tensor:
        """Whether each sample is of the source domain: samples, bool."""
        return self.place < self.classes

    @torch.no_grad()
    def fill(self, v: Tensor, label: Tensor | None) -> None:
        """The first rows: the mean of each class, and what is known of each target sample, of unit length.

        v: samples x dim, unit rows.  label: samples, int64: the class, or MISSING for the target; None: all are target.
        """
        label = torch.full_like(self.place, MISSING) if label is None else label.to(self.place.device)
        own = self.classes + torch.arange(len(label), device=label.device)
        self.place.copy_(torch.where(label < 0, own, label))
        rows = torch.cat([torch.zeros_like(v[:1]).expand(self.classes, -1), v]).to(self.rows.dtype)
        rows[: self.classes].index_add_(0, label[label >= 0], v[label >= 0].to(rows.dtype))
        self.rows.copy_(normalize(rows))
        used = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        used[self.place] = True
        self.identity.copy_(torch.where(used, torch.arange(len(rows), device=rows.device), MISSING))
        self.seen.copy_(used)

    @torch.no_grad()
    def name(self, cluster: Tensor) -> None:
        """Give the target samples, in their order, the identities classes + cluster, int64 from 0, until the next."""
        self.identity[self.place[~self.source]] = self.classes + cluster.to(self.identity.device)

    @torch.no_grad()
    def write(self, index: Tensor, v: Tensor, *, keep: float = 0.0, group: Tensor | None = None) -> None:
        """rows <- normalize(keep * rows + (1 - keep) * v), for the samples `index` (N) of every rank, one by one.

        A row of a class that has several samples there moves several times, in the order of the batch.
        """
        row, v = self.place[gather(index)], gather(v.detach()).to(self.rows.dtype)
        known = self.seen[row] & (row >= self.classes)  # a class moves with who is seen, not with the encoder alone
        self.moved = 1 - ((self.rows[row] * normalize(v)).sum(1) * known).sum() / known.sum()  # NaN where none is
        for now in in_turns(row):
            self.rows[row[now]] = normalize(keep * self.rows[row[now]] + (1 - keep) * v[now])
        self.seen[row] = True
        if group is not None:
            known = gather(group)
            self.group[row] = torch.where(row < self.classes, MISSING, known)  # a class has samples of many groups

    def prototypes(self) -> Centroids:
        """The means of the rows of each identity, as they stand now."""
        used = self.identity >= 0
        names, part = torch.unique(self.identity[used], return_inverse=True)
        column = torch.full_like(self.identity, MISSING)
        column[used] = part
        count = torch.bincount(part, minlength=len(names))
        centroids = self.rows.new_zeros(len(names), self.rows.shape[1]).index_add_(0, part, self.rows[used])
        least, most = (
            torch.zeros_like(names).scatter_reduce_(0, part, self.group[used], way, include_self=False)
            for way in ("amin", "amax")
        )
        return Centroids(centroids / count[:, None], column[self.place], torch.where(least == most, least, MISSING))
