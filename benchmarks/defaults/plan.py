"""Which runs the bench wants, in the order in which they tell most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from benchmarks.defaults import choice, measure, sets
from benchmarks.defaults.candidates import CANDIDATES, OLD

SEEDS = (0, 1, 2)


class Job(NamedTuple):
    """One run."""

    name: str
    method: str
    config: str
    minutes: float
    seed: int

    @property
    def done(self) -> bool:
        return measure.path(*self).exists()


def jobs(methods: Sequence[str], names: Sequence[str], budgets: Sequence[float]) -> Iterator[Job]:
    """Every configuration at the budget of choices, with one seed; then, at every budget and seed, what is chosen
    without the set, and the old default. What is chosen may change with each result, and the jobs with it."""
    for method in methods:
        for config in CANDIDATES[method]:
            for name in names:
                yield Job(name, method, config, choice.SCREENED, 0)
    for minutes in budgets:
        for seed in SEEDS:
            for method in methods:
                for name in names:
                    for config in dict.fromkeys([choice.left_out(name, method), OLD]):
                        if config:
                            yield Job(name, method, config, minutes, seed)


def told(jobs: Sequence[Job]) -> str:
    """What is not there yet, by method and budget, with its cost."""
    left = [job for job in jobs if not job.done]
    lines = [f"{len(left)} of {len(jobs)} runs are missing, {sum(job.minutes for job in left) / 60:.1f} CPU-hours:"]
    for method in dict.fromkeys(job.method for job in left):
        for minutes in sorted({job.minutes for job in left if job.method == method}):
            some = [job for job in left if (job.method, job.minutes) == (method, minutes)]
            where = ", ".join(sorted({job.name for job in some}, key=list(sets.SETS).index))
            lines.append(f"  {method}, {minutes:g} min: {len(some)} runs, {len(some) * minutes:.0f} minutes: {where}")
    return "\n".join(lines)
