"""Samples told apart by the rows that a bank holds of them: the four forms of the loss, and the negatives drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nearfar.batch import Batch
from nearfar.losses.instances import instance_softmax, log_partition, nce
from nearfar.losses.pairwise import info_nce
from nearfar.losses.pretext_invariant import told_apart
from nearfar.memory.bank import Bank
from nearfar.method import equal_rows


@dataclass(frozen=True, slots=True)
class BankContrast:
    """The loss of finding each row's own sample in a bank.

    form: "nce" (arXiv 1805.01978), "infonce", "softmax" over all rows of the bank, or "paper" (arXiv 1912.01991).
    temperature: of the similarities.  negatives: rows drawn from the bank, the same for all; "softmax" draws none. For
    "paper" a draw that is the row's own gives way, for that row, to one of the others; elsewhere it stays a negative.
    """

    form: Literal["nce", "infonce", "softmax", "paper"]
    temperature: float
    negatives: int

    def __call__(
        self, v: Tensor, batch: Batch, bank: Bank, log_z: Tensor, generator: torch.Generator, *, estimate: bool = True
    ) -> tuple[Tensor, Tensor]:
        """The loss, and log Z.

        v: VN x dim, unit rows of V views of the batch.  log_z: a constant of "nce", which is estimated where the bank
        is still new, unless `estimate` is off.  generator: of the draws, the same on every rank.
        """
        times, n, t = len(v) // len(batch), len(bank.rows), self.temperature
        index, columns, hidden = batch.index.repeat(times), slice(None), None
        if self.form != "softmax":
            columns = drawn = torch.randint(n, (self.negatives,), generator=generator).to(v.device)
            if self.form == "paper":
                columns, hidden = _without_own(drawn, index, n, generator)
        own, others = bank.rows[index], bank.rows[columns]
        groups = None if batch.group is None else (batch.group.repeat(times), bank.group[columns])
        if self.form == "softmax":
            return instance_softmax(v, others, index, temperature=t, groups=groups), log_z
        if self.form == "paper":
            return told_apart(v, own, others, temperature=t, groups=groups, hidden=hidden), log_z
        if self.form == "infonce":
            return info_nce(v, own, others, temperature=t, groups=groups), log_z
        if estimate and not bank.seen.any():
            log_z = log_partition(v, own, others, temperature=t, samples=n)
        return nce(v, own, others, temperature=t, log_z=log_z, samples=n, groups=groups), log_z

    def chance(self, batch: Batch, views: int, bank: Bank, generator: torch.Generator) -> Tensor | None:
        """The loss where all rows are alike, those of the bank too; None of "nce", where it depends on Z."""
        if self.form == "nce":
            return None
        v = equal_rows(batch, bank.rows.shape[1]).repeat(views, 1)
        return self(v, batch, bank, v.new_zeros(()), generator)[0]


def _without_own(drawn: Tensor, index: Tensor, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Columns of the bank of n rows, more than were drawn, and which of them each row does not see: N x columns, bool.

    Each row sees as many as were drawn: where a draw is its own row, another instead, each of the others as likely.
    """
    others = (drawn + torch.randint(1, max(n, 2), drawn.shape, generator=generator).to(drawn.device)) % n
    own = torch.isin(drawn, index)
    first = index[:, None] == drawn  # N x K
    return torch.cat([drawn, others[own]]), torch.cat([first, ~first[:, own]], 1)
