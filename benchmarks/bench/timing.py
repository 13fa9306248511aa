"""Contenders that take turns, and the ratios of their times."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

Run = Callable[[], object]
Contender = Callable[[], Run]
"""Imports what it needs, makes ready, and gives the function to be timed. ImportError: the library is not there."""

OURS = "nearfar"
SHORTEST = 0.01  # seconds: shorter runs are repeated within a turn


class DoesNotFit(MemoryError):
    """A contender needs more memory than this machine should give it."""


@dataclass(slots=True)
class Spread:
    """Median, and the smallest and largest, of some turns."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))


@dataclass(slots=True)
class Row:
    """What was measured of one task.

    seconds: of each contender.  ratio: how many times as long as ours, or as the reference, each took.
    rate: how many things were done in a run, where a rate means more than seconds.
    value: what each returned, where it is a number.  absent: contenders that could not run, and why.
    """

    name: str
    size: dict[str, int]
    seconds: dict[str, Spread]
    ratio: dict[str, Spread]
    turns: int
    reference: str = OURS
    rate: tuple[int, str] | None = None
    value: dict[str, float] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The row as lines for people."""
        size = " ".join(f"{k}={v}" for k, v in self.size.items())
        lines = [f"{self.name}  {size}  ({self.turns} turns)"]
        for who, spent in self.seconds.items():
            ratio = self.ratio[who]
            value = f"  value {self.value[who]:.5g}" if who in self.value else ""
            rate = f"  {self.rate[0] / spent.median:9.0f} {self.rate[1]}" if self.rate else ""
            lines.append(
                f"    {who:30s} {1e3 * spent.median:10.2f} ms{rate}"
                f"   {ratio.median:7.2f} x  ({ratio.low:.2f} to {ratio.high:.2f}){value}"
            )
        lines += [f"    {who:30s} {why}" for who, why in self.absent.items()]
        return "\n".join(lines + [f"    {note}" for note in self.notes])


def compare(
    name: str,
    size: dict[str, int],
    contenders: dict[str, Contender],
    *,
    clock: Callable[[], float],
    seconds: float,
    least: int = 3,
    most: int = 15,
    reference: str = OURS,
    rate: tuple[int, str] | None = None,
    warm: bool = True,
) -> Row:
    """Time the contenders in turns, for about so many `seconds` but at least `least` turns and at most `most`.

    warm: run each before the turns, whose number is `least` otherwise.
    """
    absent: dict[str, str] = {}
    runs: dict[str, Run] = {}
    value: dict[str, float] = {}
    alone: dict[str, float] = {}  # seconds of a run, about

    def once(who: str, run: Run) -> float:
        began = clock()
        result = run()
        if isinstance(result, float):
            value.setdefault(who, result)
        return max(clock() - began, 1e-7)

    for who, make in contenders.items():
        try:
            run = make()
            if warm:
                alone[who] = once(who, run)  # the first run pays for lazy imports and thread pools
                if alone[who] < 2:
                    alone[who] = once(who, run)
            runs[who] = run
        except ImportError as error:
            absent[who] = f"not installed ({error.name})"
        except MemoryError as error:
            absent[who] = str(error)
        except RuntimeError as error:
            if "allocate memory" not in str(error) and "out of memory" not in str(error):
                raise
            absent[who] = "does not fit"
    if reference not in runs:
        raise RuntimeError(f"{name}: the reference {reference!r} did not run: {absent}")
    repeats = {who: max(1, round(SHORTEST / alone[who])) if warm else 1 for who in runs}
    turns = max(least, min(most, int(seconds / sum(repeats[w] * alone[w] for w in runs)))) if warm else least
    spent: dict[str, list[float]] = {who: [] for who in runs}
    for _ in range(turns):
        for who, run in runs.items():
            spent[who].append(sum(once(who, run) for _ in range(repeats[who])) / repeats[who])
    ratio = {who: [a / b for a, b in zip(spent[who], spent[reference], strict=True)] for who in runs}
    row = Row(
        name,
        size,
        {who: Spread.of(s) for who, s in spent.items()},
        {who: Spread.of(r) for who, r in ratio.items()},
        turns,
        reference,
        rate,
        value,
        absent,
    )
    print(row.text(), flush=True)
    return row


def clock_for(threads: int) -> Callable[[], float]:
    """CPU time where there is one thread, which other people's work disturbs least; else the time on the wall."""
    return time.process_time if threads == 1 else time.perf_counter
