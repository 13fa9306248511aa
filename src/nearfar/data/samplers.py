"""In which order samples are drawn for the steps of an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Literal, get_args

import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.errors import UserError

Sampler = Literal["shuffled", "balanced", "aware", "pk"]
"""shuffled: each sample once, in any order.  balanced: every class as likely as any other.
aware: class-aware, round after round over the classes, each with its next sample.
pk: in each step P classes with K samples each, of a class that has fewer all."""


def order(sampler: str, label: Tensor, *, batch: int, steps: int, per_class: int, generator: torch.Generator) -> Tensor:
    """The samples of all steps of an epoch, one batch after another: steps * batch, int64.

    label: N, int64, or MISSING: such samples keep their share of the draws under balanced and aware, and each is a
    class of its own under pk.  A class is gone through in a random order before any of its samples comes again.
    Raises ValueError for another sampler.
    """
    draws, label = steps * batch, label.cpu()
    match sampler:
        case "shuffled":
            return torch.randperm(len(label), generator=generator)[:draws]
        case "balanced" | "aware":
            known = label >= 0
            if not known.any():
                return torch.randperm(len(label), generator=generator)[:draws]
            classes = torch.unique(label[known])
            rounds = -(-draws // len(classes))
            if sampler == "balanced":
                turns = classes[torch.randint(len(classes), (draws,), generator=generator)]
            else:
                turns = torch.cat([classes[torch.randperm(len(classes), generator=generator)] for _ in range(rounds)])
            drawn = torch.full((draws,), MISSING)
            labeled = torch.rand(draws, generator=generator) >= (~known).float().mean()
            drawn[labeled] = turns[: int(labeled.sum())]
            out = torch.empty(draws, dtype=torch.int64)
            for number in torch.unique(drawn):
                places = (drawn == number).nonzero()[:, 0]
                members = (label == number).nonzero()[:, 0]
                again = -(-len(places) // len(members))
                orders = [members[torch.randperm(len(members), generator=generator)] for _ in range(again)]
                out[places] = torch.cat(orders)[: len(places)]
            return out
        case "pk":
            members = _members(label, generator)
            turns = _turns(len(members), generator)
            return torch.tensor([i for _ in range(steps) for i in _step(members, turns, batch, per_class)])
    raise UserError(f"--sampler {sampler!r} is none of {', '.join(get_args(Sampler))}")


def _members(label: Tensor, generator: torch.Generator) -> list[list[int]]:
    """The samples of each class in a random order."""
    own = torch.where(label < 0, label.max() + 1 + torch.arange(len(label)), label)
    mixed = torch.randperm(len(label), generator=generator)
    _, counts = torch.unique(own, return_counts=True)
    return [part.tolist() for part in mixed[own[mixed].sort(stable=True).indices].split(counts.tolist())]


def _turns(classes: int, generator: torch.Generator) -> Iterator[int]:
    while True:
        yield from torch.randperm(classes, generator=generator).tolist()


def _step(members: list[list[int]], turns: Iterator[int], batch: int, per_class: int) -> Iterator[int]:
    """The samples of a step, none of them twice: K of a class, then of the next, until there are enough."""
    taken: dict[int, int] = {}
    left = batch
    for turn in turns:
        there = members[turn]
        several = min(per_class, left, len(there) - taken.get(turn, 0))
        yield from islice(there, several)
        there += there[:several]  # what was drawn comes last the next time
        del there[:several]
        taken[turn] = taken.get(turn, 0) + several
        left -= several
        if not left:
            return
