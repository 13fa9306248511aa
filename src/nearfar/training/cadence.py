"""When the probe is taken, and on how many samples, so that it costs a small share of training: by counted work.

One pass of a plain view through the encoder is a third of what training does with a view. Work is counted, not timed,
so that a run is the same on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.batch import to
from nearfar.evaluation.held import MANY, TRIED
from nearfar.method import Encoder

SHARE = 0.02
"""Of the counted work of training, what all probes together may take: 3 % with what is not counted."""

MOST = 20_000
"""Samples of a probe: more take memory, and tell no more."""

WANTED, LEAST = 500, 200
"""Samples of a probe, or ten a class, for which probes are left out; and those without which none says anything."""


FEWEST = 5
"""Checkpoints that are scored all the same: there is nothing to choose from fewer."""

SCORED, VIEWS, IMAGES = 1000, 4, 32
"""Samples of the scores without labels, at most; views of each of a quarter of them; and those whose maps count."""


def cadence(
    epochs: int, *, samples: int, labeled: int, classes: int, views: int, work: tuple[float, int], share: float = SHARE
) -> tuple[list[int], int]:
    """The epochs after which the probe is taken, 0 before the first; and how many samples it takes.

    They are spaced as powers: 0, 1, ... and the last. There are fewer of them, down to 0, half and the last, where each
    would have too few samples; and 0 and the last, where even so it would.
    work: of one sample in a pass, in multiplications; and the width of the representation.  share: of all work.
    """
    budget = share * 3 * views * samples * epochs * work[0]
    wanted = min(labeled, max(WANTED, 10 * classes))
    most, least = 2 + math.ceil(math.log2(epochs)), 3 if _taking(budget / 3, work, cost) >= LEAST and epochs > 1 else 2
    count = next((n for n in range(most, 3, -1) if _taking(budget / n, work, cost) >= wanted), least)
    rows = min(labeled, MOST, max(LEAST, _taking(budget / count, work, cost)))
    spaced = {round(epochs ** (i / (count - 2))) for i in range(count - 1)} if count > 3 else {-(-epochs // 2)}
    return sorted({0, *(spaced if count > 2 else ()), epochs}), rows


def scored(epochs: int, every: int, *, samples: int, views: int, work: tuple[float, int]) -> tuple[list[int], int]:
    """The epochs after which scores without labels are measured, and on how many samples: half of what probes may take.

    At 0, before the first, at each checkpoint that is kept, and at the last; at fewer of them, evenly spaced, where
    each would have fewer than LEAST samples; but at FEWEST all the same.
    """
    budget = SHARE / 2 * 3 * views * samples * epochs * work[0]
    wanted = sorted({0, *range(every, epochs + 1, every), epochs})
    count = min(len(wanted), max(FEWEST, int(budget / scoring(min(LEAST, samples), work))))
    chosen = {wanted[round(i * (len(wanted) - 1) / (count - 1))] for i in range(count)}
    rows = _taking(budget / len(chosen), work, scoring, SCORED)
    return sorted(chosen), min(samples, max(LEAST, rows))


def viewed_rows(rows: int) -> int:
    """The samples of which VIEWS views are made, so that these cost as much as the plain views."""
    return -(-rows // VIEWS)


def scoring(rows: int, work: tuple[float, int]) -> float:
    """The multiplications of the scores: passes, similarities three times, k-means, and four decompositions."""
    one, dim = work
    passes = rows + VIEWS * viewed_rows(rows) + IMAGES
    clusters = 20 * rows * math.isqrt(rows) * dim + 20 * IMAGES * 32 * 16 * dim
    return passes * one + 3 * rows * rows * (dim + 50) + clusters + 4 * 10 * min(rows, dim) ** 2 * max(rows, dim)


def _taking(
    budget: float, work: tuple[float, int], cost: Callable[[int, tuple[float, int]], float], most: int = MOST
) -> int:
    """The most samples of which what is counted by `cost` takes no more than so many multiplications."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if cost(middle, work) <= budget else (low, middle - 1)
    return low


def parts(rows: int) -> tuple[int, int]:
    """The queries and the bank of a probe."""
    queries = -(-rows // 5)
    return queries, rows - queries


def cost(rows: int, work: tuple[float, int]) -> float:
    """The multiplications of a probe: passes, and similarities of queries and of the rows by which k is chosen."""
    one, dim = work
    queries, bank = parts(rows)
    tried = bank if bank <= MANY else min(TRIED, bank // 5)
    # A similarity must also be found among the largest, which takes as long as some fifty multiplications.
    return rows * one + (queries * bank + 2 * tried * bank * 0.8) * (dim + 50)


@torch.no_grad()
def multiplications(encoder: Encoder) -> float:
    """What the layers with weights do to one sample; of an encoder that knows no example, its parameters."""
    device, total = next(encoder.parameters()).device, 0
    try:
        view = to(encoder.example(2, torch.Generator().manual_seed(0)), device)
    except NotImplementedError:
        return float(sum(p.numel() for p in encoder.parameters()))

    def count(module: nn.Module, _: Any, out: Any) -> None:
        nonlocal total
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.dim() > 1 and isinstance(out, Tensor):
            total += weight.numel() * out.numel() // weight.shape[0]

    hooks = [module.register_forward_hook(count) for module in encoder.modules()]
    training = encoder.training
    try:
        encoder.eval()(view)
    finally:
        encoder.train(training)
        for hook in hooks:
            hook.remove()
    return max(total, sum(p.numel() for p in encoder.parameters())) / 2
