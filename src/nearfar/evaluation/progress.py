"""What training has gained so far by its probes, against that before the first step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nearfar.evaluation.intervals import ALIKE, Interval, apart, judged, of_answers, wilson
from nearfar.evaluation.protocol import unpacked

WORSE_FROM, UNMOVED_FROM = 1 / 3, 1 / 2
"""Shares of the steps from which it counts that a probe is below the first one, and that it is not above it. Probes
are spaced as powers: the last one before the end comes at about half."""


def gain_between(first: Mapping[str, Any], last: Mapping[str, Any], level: float = 0.95) -> Interval | None:
    """What one probe has over another, in points: of the same samples where their answers are known, else of two
    binomials; None where it is not known on how many samples they rest.

    first, last: lines of metrics.jsonl with `knn`, `knn_samples`, and, where there are, `knn_right`, `knn_low` and
    `knn_high`.
    """
    if first.get("knn_samples") is None or last.get("knn_samples") is None:
        return None
    before, after = (_right(line) for line in (first, last))
    if before is not None and after is not None and before.shape == after.shape:
        return _wider(of_answers(after, over=before, level=level), last)
    return _wider(apart(*(binomial(line["knn"], line["knn_samples"], level) for line in (last, first))), last)


def binomial(percent: float, n: int, level: float = 0.95) -> Interval:
    """The interval of a share of n samples, as if each had come alone."""
    return Interval(percent, *wilson(round(percent / 100 * n), n, level=level))


def _wider(gain: Interval, line: Mapping[str, Any]) -> Interval:
    """A gain whose interval is as much wider as groups made that of the probe itself, beside its samples one by one."""
    own, low, high = binomial(line["knn"], line["knn_samples"]), line.get("knn_low"), line.get("knn_high")
    if low is None or high is None:
        return gain
    by = max(1.0, (high - low) / (own.high - own.low))
    return Interval(gain.mean, gain.mean - by * (gain.mean - gain.low), gain.mean + by * (gain.high - gain.mean))


def _right(line: Mapping[str, Any]) -> Tensor | None:
    try:
        return unpacked(line["knn_right"])
    except (KeyError, ValueError, TypeError, AttributeError):  # of an earlier version, or not written by us
        return None


class Progress:
    """Reads the lines of a journal, and says, once each, that training makes neighbors worse, or that no gain is seen.

    steps: of the whole run.  given: whether it began with given weights; that they were better an alarm says.
    worse: whether the newest probe says so, from `WORSE_FROM` on.
    """

    def __init__(self, steps: int, *, given: bool = False) -> None:
        self.steps, self.worse, self.given = steps, False, given
        self.first: Mapping[str, Any] | None = None
        self.found: set[str] = set()
        self.news = ""

    def see(self, line: Mapping[str, Any]) -> None:
        """A line that has just been written, or was before a run went on: what it says, is said already."""
        if line.get("knn") is None:
            return
        step, self.worse, self.news = line["step"], False, ""
        if step == 0:
            self.first = line
        if self.first is None or not step or step >= self.steps or (points := gain_between(self.first, line)) is None:
            return
        said = judged(points)
        self.worse = said == "behind" and step >= WORSE_FROM * self.steps
        unmoved = said not in ("ahead", "behind") and points.mean < ALIKE and step >= UNMOVED_FROM * self.steps
        found = "neighbors are worse" if self.worse else "no gain is seen" if unmoved else ""
        if found and found not in self.found and not (self.given and self.worse):
            self.found.add(found)
            instead = "the given weights" if self.given else "raw data or the untrained encoder"
            self.news = (
                f"At step {step:,} of {self.steps:,} kNN is {line['knn']:.1f} %, and was {self.first['knn']:.1f} % "
                f"before training ({points:+.1f} points, on {line['knn_samples']:,} samples): {found} so far. "
                f"Ctrl-C stops and saves; {instead} may do as well (`nearfar evaluate` tells), "
                "or milder --views and a lower --lr better."
            )
