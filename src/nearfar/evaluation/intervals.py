"""How sure a number is: intervals over test samples, over units such as alphabets, and over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.errors import UserError

_ENTRIES = 1 << 22
DRAWS = 4000
"""Of `of_answers`."""

PERCENT, POINTS = (0.0, 100.0), (-100.0, 100.0)
"""Between what an accuracy lies, and the difference of two."""

USUAL_SPREAD, USUAL_FREEDOM = 1.0, 2
"""The deviation of accuracies over seeds, in points, and how many degrees of freedom that knowledge is worth: fitted to
the series of `benchmarks/results` by `python -m benchmarks.seeds`."""

ALIKE = 2.0
"""Points within which two accuracies are called alike."""


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
    count, total = _units(x, group)
    generator = torch.Generator().manual_seed(seed)
    rows = max(1, _ENTRIES // len(total))
    means = torch.empty(draws, dtype=torch.float64)
    for start in range(0, draws, rows):
        drawn = torch.randint(len(total), (min(rows, draws - start), len(total)), generator=generator)
        means[start : start + rows] = total[drawn].sum(1) / count[drawn].sum(1)
    low, high = means.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)).tolist()
    return Interval(float(x.mean()), low, high)


def _units(x: Tensor, group: Tensor | None) -> tuple[Tensor, Tensor]:
    """The number of values and their sum, of each unit that was sampled independently."""
    if group is None:
        return torch.ones_like(x), x
    alone = -2 - torch.arange(len(x))
    unit = torch.where(group.cpu() == MISSING, alone, group.cpu()).unique(return_inverse=True)[1]
    return torch.bincount(unit).double(), torch.bincount(unit, weights=x)


def wilson(hits: int, total: int, *, level: float = 0.95) -> tuple[float, float]:
    """The interval of an accuracy of hits out of total test samples, in per cent (Wilson, 1927)."""
    if not 0 <= hits <= total or not total:
        raise UserError(f"{hits} hits out of {total}; wanted at least one test sample, and no more hits than samples")
    z = NormalDist().inv_cdf((1 + level) / 2)
    p = hits / total
    center = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * (p * (1 - p) / total + z * z / (4 * total * total)) ** 0.5
    return 100 * max(0.0, center - half), 100 * min(1.0, center + half)


def over_seeds(
    values: Tensor | Sequence[float], *, bounds: tuple[float, float] | None = None, level: float = 0.95
) -> Interval:
    """The mean over a few seeds with its Student t interval. values: one number per seed, at least two.

    bounds: of accuracies in per cent (`PERCENT`) or differences between them (`POINTS`): the interval stays inside, and
    the spread over seeds is moderated (see `_over_seeds`). Where the answers to test samples are known, `of_answers`
    knows more.
    """
    x = torch.as_tensor(values, dtype=torch.float64).flatten().cpu()
    if len(x) < 2:
        raise UserError(f"{len(x)} seed gives no spread; run at least two, better three")
    error, freedom = _over_seeds(x) if bounds else (float(x.std()) / len(x) ** 0.5, len(x) - 1)
    from scipy.special import stdtrit  # not at the top: training waits for this file, and SciPy takes its time

    mean, half = float(x.mean()), float(stdtrit(freedom, (1 + level) / 2)) * error
    low, high = bounds or (-torch.inf, torch.inf)
    return Interval(mean, max(low, mean - half), min(high, mean + half))


def of_answers(
    right: Tensor, *, over: Tensor | None = None, group: Tensor | None = None, seed: int = 0, level: float = 0.95
) -> Interval:
    """The share of right answers in per cent, with an interval over test samples and, where there are several, seeds.

    right: N, or S x N of S seeds that answered the same test samples; 1 or 0.
    over: the answers of another way, for the same seeds and samples: what is given is then what `right` gains over it.
    group: N, samples that came together; MISSING: alone.

    Samples, or groups, are weighted by the Bayesian bootstrap (Rubin, 1981), with half a sample more at either end of
    the scale: of one seed without groups that is Jeffreys' interval, which has a width where all answers are right.
    Seeds are too few to be drawn from: to each draw comes one of Student's t, as in `over_seeds`.
    """
    gain = right.cpu().double() if over is None else right.cpu().double() - over.cpu().double()
    gain = 100 * gain.reshape(-1, gain.shape[-1])  # S x N
    low, high = PERCENT if over is None else POINTS
    count, total = _units(gain.mean(0), group)
    unit, many = torch.stack([count, total], 1).unique(dim=0, return_counts=True)
    size = float(count.mean())
    ends = torch.tensor([[size, low * size], [size, high * size]], dtype=torch.float64)
    sums, alpha = torch.cat([unit, ends]).numpy(), torch.cat([many.double(), torch.tensor([0.5, 0.5])]).numpy()
    generator = np.random.default_rng(seed)
    rows = max(1, _ENTRIES // len(alpha))
    parts = [generator.standard_gamma(alpha, (min(rows, DRAWS - i), len(alpha))) @ sums for i in range(0, DRAWS, rows)]
    drawn = np.concatenate(parts)
    means = drawn[:, 1] / drawn[:, 0]
    if len(gain) > 1:
        error, freedom = _over_seeds(gain.mean(1))
        means = means + error * generator.standard_t(freedom, DRAWS)
    mean = float(gain.mean())
    below, above = np.quantile(means, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return Interval(mean, max(low, min(mean, below)), min(high, max(mean, above)))


def drawn_often(n: int, *, seed: int, group: Tensor | None = None, draws: int = 1000) -> Tensor:
    """How often each of n samples counts, for numbers that are no means over them: 1 + draws x n, float64. In the first
    row each counts once; in the others as often as a bootstrap drew it (Efron, 1979).

    group: n, samples that are drawn together; MISSING: alone.
    """
    alone = -2 - torch.arange(n)
    unit = torch.where(group.cpu() == MISSING, alone, group.cpu()) if group is not None else alone
    unit = unit.unique(return_inverse=True)[1]
    count = int(unit.max()) + 1
    which = torch.randint(count, (draws, count), generator=torch.Generator().manual_seed(seed))
    often = torch.zeros(which.shape, dtype=torch.float64).scatter_add_(1, which, torch.ones_like(which).double())
    return torch.cat([torch.ones(1, n, dtype=torch.float64), often[:, unit]])


def of_drawn(values: Tensor, *, bounds: tuple[float, float] = PERCENT, seed: int = 0, level: float = 0.95) -> Interval:
    """A number in per cent, or a difference between two, with its interval over samples and, where there are several,
    seeds. values: what it is for each row of `drawn_often`, 1 + B, or S x (1 + B) of S seeds. NaN: not defined there.
    bounds: between which it lies, PERCENT, or POINTS of a difference.
    """
    values = values.double().reshape(-1, values.shape[-1])
    whole, means = values[:, 0], values[:, 1:].nanmean(0)
    if len(whole) > 1:
        error, freedom = _over_seeds(whole)
        means = means + error * torch.from_numpy(np.random.default_rng(seed).standard_t(freedom, len(means)))
    low, high = means.nanquantile(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)).tolist()
    mean = float(whole.mean())
    return Interval(mean, max(bounds[0], min(mean, low)), min(bounds[1], max(mean, high)))


def apart(ours: Interval, theirs: Interval) -> Interval:
    """What ours gains over theirs, where only the two intervals are known (Newcombe's square-and-add, 1998).

    Too wide for two ways that answered the same samples: `of_answers` knows better.
    """
    gain = ours.mean - theirs.mean
    down = ((ours.mean - ours.low) ** 2 + (theirs.high - theirs.mean) ** 2) ** 0.5
    up = ((ours.high - ours.mean) ** 2 + (theirs.mean - theirs.low) ** 2) ** 0.5
    return Interval(gain, gain - down, gain + up)


def _over_seeds(values: Tensor) -> tuple[float, float]:
    """The standard error of a mean over seeds, and its degrees of freedom. values: S accuracies, or gains, in points.

    Two or three seeds say little of their own spread, but seeds of other trainings say something: the variance is the
    mean of theirs and the usual, weighted by degrees of freedom (the moderated t of Smyth, 2004).
    """
    freedom = len(values) - 1 + USUAL_FREEDOM
    squares = float((values - values.mean()).square().sum()) + USUAL_FREEDOM * USUAL_SPREAD**2
    return (squares / freedom / len(values)) ** 0.5, freedom


Judgement = Literal["ahead", "behind", "alike", "open"]


def judged(gain: Interval) -> Judgement:
    """What an interval of a gain in points says. alike: it lies within `ALIKE` of 0; open: it holds 0 and more."""
    if gain.low > 0:
        return "ahead"
    if gain.high < 0:
        return "behind"
    return "alike" if gain.low >= -ALIKE and gain.high <= ALIKE else "open"
