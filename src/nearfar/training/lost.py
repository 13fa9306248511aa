"""Samples that can be read no more in the middle of training, and the samples that stand in for them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nearfar import distributed
from nearfar.data.source import Source
from nearfar.errors import UserError, listed
from nearfar.method import derive_seed


class TooManyLost(UserError):
    """More samples than may be are lost, or none is left to stand in for them."""


class StandIns:
    """Which samples are lost, and which others take their places in a step.

    A sample that stands in is drawn by (seed, step, place in the global batch) from those that are not in that batch,
    first from those of the same label: so no image is its own negative, and no rank needs to ask another. What a step
    sees depends on nothing but which files can be read at that moment. Where fewer samples than a batch are outside of
    it, a rank takes what is left for its own places, which depends on the number of processes; where nothing is left,
    one process lets another sample of the batch stand in (see `Batches`), and several processes give up.

    lost: by position, name and reason of each lost sample; it grows.  mine: this rank's places in the global batch.
    """

    def __init__(self, data: Source, lost: dict[int, tuple[str, str]], *, seed: int, mine: slice) -> None:
        self.data, self.lost, self.seed, self.mine = data, lost, seed, mine
        self.told = set(lost)
        skipped = len(getattr(data, "skipped", ()))
        self.max_bad: float | None = getattr(data, "max_bad", None)
        self.count, self.before = len(data) + skipped, skipped

    @property
    def too_many(self) -> bool:
        """Whether more samples are lost than may be."""
        return bool(self.lost) and self.before + len(self.lost) > (self.max_bad or 0.0) * self.count

    def note(self, lost: dict[int, tuple[str, str]]) -> None:
        """Keep what was found lost.

        Raises TooManyLost where that is too many; where several processes allow for some, they end together: see
        `agree`.
        """
        self.lost.update(lost)
        if self.too_many and (distributed.world() == 1 or self.max_bad is None):
            raise self.error()

    def agree(self) -> bool:
        """Let every rank know what any has found. Whether more are lost than may be, the same on every rank."""
        if self.max_bad is not None and distributed.world() > 1:
            # What a thread finds meanwhile is for the next time.
            known = {row: what for found in distributed.exchange(dict(self.lost)) for row, what in found.items()}
            self.lost.update(known)
            return self.before + len(known) > self.max_bad * self.count if known else False
        return self.too_many

    def error(self) -> TooManyLost:
        """What to do where too many are lost."""
        share = (self.before + len(self.lost)) / self.count
        unread = f", beside {self.before} that never could" if self.before else ""
        text = f"{len(self.lost)} of {self.count} samples can be read no more{unread}: {listed(self.lost.values())}. "
        if self.max_bad is None:
            return TooManyLost(f"{text}Put back what was there, and go on with --resume")
        return TooManyLost(
            f"{text}That is {share:.1%}, where {self.max_bad:.1%} are allowed. Put back what was there and go on with "
            f"--resume, or go on without them: --resume --max-bad {math.ceil(share * 100) / 100:g}"
        )

    def news(self) -> str | None:
        """A sentence on those that were lost since this was last asked."""
        new = {row: what for row, what in dict(self.lost).items() if row not in self.told}
        self.told |= new.keys()
        if not new:
            return None
        return (
            f"{len(new)} of {self.count} samples can be read no more, and others stand in for them: "
            f"{listed(new.values())}."
        )

    def filled(self, batch: Tensor, step: int) -> tuple[Tensor, bool]:
        """The samples of this rank in a global batch, without those that are lost; and whether one is there twice.

        Raises TooManyLost where there are no others.
        """
        mine = batch[self.mine].clone()
        gaps = [k for k, row in enumerate(mine.tolist()) if row in self.lost]
        if not gaps:
            return mine, False
        generator = torch.Generator().manual_seed(derive_seed(self.seed, step, 4))
        drawn = torch.randperm(len(self.data), generator=generator)
        inside = torch.isin(drawn, batch)
        others, places = drawn[~inside].tolist(), range(self.mine.start, self.mine.stop)
        left = [row for place in places for row in others[place :: len(batch)]]
        taken, twice = set(self.lost), False
        for k in gaps:
            label, own = self.data.label[mine[k]], others[places[k] :: len(batch)]
            own.sort(key=lambda row: bool(self.data.label[row] != label))
            row = next((row for row in [*own, *left] if row not in taken), None)
            if row is None:
                row, twice = self._twin(drawn[inside].tolist(), k), True
            mine[k] = row
            taken.add(row)
        return mine, twice

    def _twin(self, batch: list[int], k: int) -> int:
        """A sample of the batch itself, for the k-th place."""
        good = [row for row in batch if row not in self.lost]
        if distributed.world() > 1 or not good:
            raise TooManyLost(
                f"{len(self.lost)} of {self.count} samples can be read no more: {listed(self.lost.values())}; and in a "
                f"batch of {len(batch)} there are too few others to stand in for them. Put back what was there and go "
                "on with --resume, or start a new run with a smaller --batch"
            )
        return good[k % len(good)]
