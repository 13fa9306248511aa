"""How sure a number is: intervals over test samples, over units such as alphabets, and over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.errors import UserError

_ENTRIES = 1 << 22


class Interval(NamedTuple):
    """A mean and the interval around it, in the unit of the values."""

    mean: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        """`mean [low, high]`, each number by `spec`: f"{gain:+.1f}" is +2.2 [+1.7, +2.7]."""
        return f"{self.mean:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def bootstrap(
    values: Tensor | Sequence[float],
    *,
    seed: int,
    group: Tensor | None = None,
    level: float = 0.95,
    draws: int = 10_000,
) -> Interval:
    """The mean of some values with its percentile bootstrap interval (Efron, 1979).

    values: n numbers, one per unit that was sampled independently (an alphabet, a test image), not per episode.
    group: n, values that came together (images of one patient) and are drawn together; MISSING: drawn alone.
    One unit gives an interval without width: nothing is known of the spread.
    """
    x = torch.as_tensor(values, dtype=torch.float64).flatten().cpu()
    if not len(x):
        raise UserError("no values to take the mean of; wanted at least one unit")
    count, total = torch.ones_like(x), x
    if group is not None:
        unit = torch.where(group.cpu() == MISSING, -2 - torch.arange(len(x)), group.cpu()).unique(return_inverse=True)[
            1
        ]
        count = torch.bincount(unit).double()
        total = torch.bincount(unit, weights=x)
    generator = torch.Generator().manual_seed(seed)
    rows = max(1, _ENTRIES // len(total))
    means = torch.empty(draws, dtype=torch.float64)
    for start in range(0, draws, rows):
        drawn = torch.randint(len(total), (min(rows, draws - start), len(total)), generator=generator)
        means[start : start + rows] = total[drawn].sum(1) / count[drawn].sum(1)
    low, high = means.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)).tolist()
    return Interval(float(x.mean()), low, high)


def wilson(hits: int, total: int, *, level: float = 0.95) -> tuple[float, float]:
    """The interval of an accuracy of hits out of total test samples, in per cent (Wilson, 1927)."""
    if not 0 <= hits <= total or not total:
        raise UserError(f"{hits} hits out of {total}; wanted at least one test sample, and no more hits than samples")
    z = NormalDist().inv_cdf((1 + level) / 2)
    p = hits / total
    center = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * (p * (1 - p) / total + z * z / (4 * total * total)) ** 0.5
    return 100 * max(0.0, center - half), 100 * min(1.0, center + half)


def over_seeds(values: Tensor | Sequence[float], *, level: float = 0.95) -> Interval:
    """The mean over a few seeds with its Student t interval. values: one number per seed, at least two."""
    x = torch.as_tensor(values, dtype=torch.float64).flatten().cpu()
    if len(x) < 2:
        raise UserError(f"{len(x)} seed gives no spread; run at least two, better three")
    from scipy.special import stdtrit  # not at the top: training waits for this file, and SciPy takes its time

    half = float(stdtrit(len(x) - 1, (1 + level) / 2)) * float(x.std()) / len(x) ** 0.5
    return Interval(float(x.mean()), float(x.mean()) - half, float(x.mean()) + half)


class Difference(NamedTuple):
    """b minus a over paired units. `seen` is False when the interval contains 0: no difference seen."""

    mean: float
    low: float
    high: float
    seen: bool

    def __str__(self) -> str:
        if not self.seen:
            return f"no difference seen ({self.mean:+.2f}, 95 % interval {self.low:+.2f} to {self.high:+.2f})"
        return f"{self.mean:+.2f} (95 % interval {self.low:+.2f} to {self.high:+.2f})"


def difference(
    a: Tensor | Sequence[float], b: Tensor | Sequence[float], *, seed: int, group: Tensor | None = None
) -> Difference:
    """What b gains over a on the same units (test images, alphabets), by the paired bootstrap.

    a, b: n numbers each, in the same order of units.  group: n, as for `bootstrap`.
    """
    first, second = (torch.as_tensor(v, dtype=torch.float64).flatten().cpu() for v in (a, b))
    if first.shape != second.shape:
        raise UserError(f"{len(first)} and {len(second)} units cannot be paired; give both the same test samples")
    mean, low, high = bootstrap(second - first, seed=seed, group=group)
    return Difference(mean, low, high, not low <= 0 <= high)
