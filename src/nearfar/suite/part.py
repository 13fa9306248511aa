"""What a part of a suite is: a measure that is taken of one encoder after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from nearfar.evaluation.intervals import bootstrap, of_answers
from nearfar.evaluation.protocol import Result, packed, unpacked
from nearfar.studies.transfer import Row
from nearfar.suite.case import Case

Better = Literal["higher", "lower", ""]
DRAWS = 2000


@dataclass(kw_only=True)
class Number:
    """One number of one encoder.

    low, high: its 95 % interval; None where none is had.
    right: which answers are right, as `packed` writes it.  each: a number of each unit, of which `value` is the mean.
    By either, what one encoder gains over another on the same samples is taken pair by pair.
    group: of each unit, units that came together.
    better: which way is better; "" where neither is.  places: decimals that are shown.
    """

    value: float
    low: float | None = None
    high: float | None = None
    right: str = ""
    each: list[float] | None = None
    group: list[int] | None = None
    better: Better = "higher"
    places: int = 1


@dataclass(kw_only=True)
class Told:
    """What a part tells of one encoder.

    numbers: by title.  protocol: how they came about.  notes: sentences.
    result: by name, what `nearfar.evaluation.evaluate` gives, for the parts that it has too.
    kept: what the same part needs of this encoder when it measures the next.
    """

    numbers: dict[str, Number]
    protocol: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    result: dict[str, Result] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)


Measure = Callable[[Case, Row, Mapping[str, Told]], Told]
"""(case, encoder, what was told of the encoders before it) -> what is told of this one."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a suite.

    name: one of `nearfar.suite.names.PARTS`.
    source: of the protocol.
    unfit: why it does not apply to the samples and the run; "" where it does.
    seconds: about how long it takes for one encoder.
    measure: takes it.
    version: raised whenever a change moves a number.
    """

    name: str
    source: str
    unfit: Callable[[Case], str]
    seconds: Callable[[Case], float]
    measure: Measure
    version: int = 1


def of_result(result: Result, group: list[int] | None) -> Number:
    """The accuracy of a result of `nearfar.evaluation`, with its interval and answers.  group: of each sample."""
    return Number(value=result["accuracy"], low=result["low"], high=result["high"], right=result["right"], group=group)


def of_hits(hit: Tensor, case: Case, tested: Tensor) -> Number:
    """The share of right answers to the samples `tested`, in per cent. hit: M, bool."""
    group = None if case.group is None else case.group[tested]
    mean, low, high = of_answers(hit, group=group, seed=case.seed)
    return Number(value=mean, low=low, high=high, right=packed(hit), group=listed(group))


def of_each(values: Tensor, case: Case, rows: Tensor, *, better: Better = "higher", places: int = 1) -> Number:
    """The mean over units, with a bootstrap interval.  values: n.  rows: n, the positions of the units."""
    group = None if case.group is None else case.group[rows]
    mean, low, high = bootstrap(values, seed=case.seed, group=group, draws=DRAWS)
    each = [float(f"{value:.6g}") for value in values.tolist()]
    return Number(value=mean, low=low, high=high, each=each, group=listed(group), better=better, places=places)


def gain(ours: Number, theirs: Number, seed: int) -> dict[str, float] | None:
    """What one number gains over another on the same units, with a paired 95 % interval; None where units are not
    known, or are not the same."""
    group = None if ours.group is None else torch.tensor(ours.group)
    if ours.right and theirs.right:
        one, other = unpacked(ours.right), unpacked(theirs.right)
        if one.shape != other.shape:
            return None
        value, low, high = of_answers(one, over=other, group=group, seed=seed)
    elif ours.each is not None and theirs.each is not None and len(ours.each) == len(theirs.each):
        apart = torch.tensor(ours.each, dtype=torch.float64) - torch.tensor(theirs.each, dtype=torch.float64)
        value, low, high = bootstrap(apart, seed=seed, group=group, draws=DRAWS)
    else:
        return None
    return {"value": value, "low": low, "high": high}


def listed(group: Tensor | None) -> list[int] | None:
    return None if group is None else group.tolist()
