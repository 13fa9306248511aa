"""Is training well? Readings of the representation while it is learned, and alarms with cause and remedy.

All from numbers that are at hand: what the encoder made of the last batch, the loss and chance, the gradient's length,
what a queue or bank says of its own age.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from nearfar.evaluation.geometry import alignment, effective_rank, found, spread, uniformity

ROWS = 128
"""Samples of a batch that are looked at: enough to tell, and quick."""

COLLAPSED = 0.02
"""Spread below which all samples have, for all that matters, one representation; untrained networks have 0.1 to 0.6."""

FLAT = 0.1
"""Share of the effective rank at the start below which the representation has lost its dimensions."""

STUCK_STEPS = 200
"""Steps after which a loss that has not left chance is called stuck."""

AT_CHANCE, CHANCE_LINES = 0.002, 5
"""Distance from chance, as a share of it, at which a loss that stays there for so many lines, when the rate no longer
rises, is that of equal representations."""

EASY, EASY_UNTRAINED = 0.95, 0.6
"""Share of the other views that are found, of 255 candidates, from which a task is too easy: soon after the start, and
before the first step. Healthy runs of 100 steps have up to 0.92, and untrained networks up to 0.4; on views that take
0.85 to 1 of an image they have 0.62 to 0.67."""

EARLY, FIRST_EPOCH = 100, 500
"""Steps that are soon after the start, and steps of a first epoch that are."""

EXPLODED = 100.0
"""Times the usual length of the gradient."""

STARVED = 0.5
"""Share of the time that waits for input."""

ALONE = 0.1
"""Share of the anchors with a positive below which most of a batch teaches nothing."""

USUAL = 1000
"""Lines of the journal by which the usual length of the gradient is judged."""

Line = Mapping[str, float]
"""A line of the journal: step, epoch, and numbers by name."""


@dataclass(frozen=True)
class Alarm:
    """Something is wrong. name: one word or two.  text: what was seen, the likely cause, and a remedy."""

    name: str
    text: str


@torch.no_grad()
def readings(passes: Sequence[Tensor], samples: int) -> dict[str, float]:
    """Numbers on the representation of a batch of `samples`, from what passed the encoder: V views, one after another.

    spread: 0 where all samples are alike, 1 where they are spread evenly.  effective_rank: dimensions in use.
    Of two views also accuracy: how often, in per cent, a sample's other view is the nearest of all; candidates, the
    number of them, without which no alarm says that this is too easy; alignment and uniformity (arXiv 2005.10242). All
    of the encoder's output, not of the projector's.
    """
    whole = [h for h in passes if h.dim() == 2 and len(h) % samples == 0]
    views = [view for h in whole for view in h.float().split(samples)]
    if not views or samples < 2 or not all(view.isfinite().all() for view in views[:2]):
        return {}
    first = views[0][:ROWS]
    numbers = {"spread": spread(first), "effective_rank": effective_rank(first)}
    if len(views) > 1 and views[1].shape == views[0].shape:
        second = views[1][:ROWS]
        numbers["accuracy"] = 100 * found(first, second)
        numbers["candidates"] = 2 * len(first) - 1
        numbers |= {"alignment": alignment(first, second), "uniformity": uniformity(first)}
    return numbers


@runtime_checkable
class Memory(Protocol):
    """A module that knows how far the encoder has moved since it was written: 0 is not at all, None not yet known."""

    def drift(self) -> Tensor | None: ...


def drift(method: nn.Module) -> dict[str, float]:
    """The mean drift of the memories inside a method, under that name; nothing where it has none."""
    drifts = [module.drift() for module in method.modules() if isinstance(module, Memory)]
    known = [float(value) for value in drifts if value is not None]
    return {"drift": fmean(known)} if known else {}


def finite(line: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a line of the journal, which writes those that are not as null."""
    return {k: v for k, v in line.items() if isinstance(v, int | float) and math.isfinite(v)}


class Judge:
    """Reads a journal line by line, and keeps what alarms need of it: no more for a long run than for a short one."""

    def __init__(self) -> None:
        self.ends: list[Line] = []  # the first and the last with readings
        self.last: Line = {}  # the last with a loss
        self.late = (math.inf, -math.inf)  # the lowest and the highest loss once training should have left chance
        self.newest: deque[Line] = deque(maxlen=CHANCE_LINES)  # with a loss
        self.easy: Line = {}  # an early one whose other views were found too well
        self.norms: deque[float] = deque(maxlen=USUAL)
        self.shares: deque[float] = deque(maxlen=5)
        self.positives: deque[float] = deque(maxlen=5)

    def see(self, line: Mapping[str, float | None]) -> None:
        line = finite(line)
        if "step" not in line:
            return
        if "spread" in line:
            self.ends = [*self.ends[:1], line]
        if not self.easy and _is_easy(line):
            self.easy = line
        if "loss" not in line:
            return
        self.last = line
        self.newest.append(line)
        if line["step"] > STUCK_STEPS / 2:
            self.late = min(self.late[0], line["loss"]), max(self.late[1], line["loss"])
        for name, kept in (
            ("gradient_norm", self.norms),
            ("input_share", self.shares),
            ("with_positive", self.positives),
        ):
            if name in line:  # in fp16 the gradient may overflow: that step has no norm
                kept.append(line[name])

    def alarms(self, *, rate: str = "--lr") -> list[Alarm]:
        """What the lines so far give reason to worry about; nothing, where all is well."""
        checks = (self._collapse, self._stuck, self._easiness, self._explosion, self._starvation, self._loneliness)
        return [alarm for check in checks if (alarm := check(rate)) is not None]

    def _collapse(self, rate: str) -> Alarm | None:
        if not self.ends:
            return None
        first, last = self.ends[0], self.ends[-1]
        if last["spread"] < COLLAPSED and last["spread"] < first["spread"] / 2:
            return Alarm(
                "collapse",
                f"all samples have nearly the same representation (spread {last['spread']:.3f}, at first "
                f"{first['spread']:.3f}). Mostly the rate is too high, or what keeps the method from collapsing "
                f"(predictor, slow copy, batch norm, negatives) is out of action. Try {rate} at a third of its "
                "value, and the method's own defaults.",
            )
        if "effective_rank" in first and last.get("effective_rank", math.inf) < FLAT * first["effective_rank"]:
            return Alarm(
                "dimensional collapse",
                f"{last['effective_rank']:.1f} dimensions of the representation are in use, of "
                f"{first['effective_rank']:.1f} at first. Views that are too strong, or a temperature too high, do "
                f"that. Try milder --views, or {rate} at a third of its value.",
            )
        return None

    def _stuck(self, rate: str) -> Alarm | None:
        if not self.last or (self.last["step"] < STUCK_STEPS and not self._stays_at_chance()):
            return None
        (lowest, highest), chance, margin = self.late, self.last.get("chance"), self.last.get("margin")
        seen = f"after {self.last['step']:.0f} steps the loss is {self.last['loss']:.3f}, and "
        if margin is not None and 0.99 * margin <= lowest and highest <= 1.01 * margin:
            return Alarm(
                "stuck at the margin",
                f"{seen}{margin:.3f} is the margin: positives and negatives are equally far, as where all samples are "
                "represented alike. Only the hardest negatives, taken from the start, often lead there. Try milder "
                f"mining or a larger --batch, and {rate} at a third of its value.",
            )
        if chance is not None and chance > 0 and (lowest > 0.99 * chance or self._stays_at_chance()):
            return Alarm(
                "stuck at chance",
                f"{seen}a model that knows nothing has {chance:.3f}. The rate is too high or far too low, or the views "
                f"share nothing. Look at `nearfar views`, and try {rate} at a third of its value.",
            )
        return None

    def _stays_at_chance(self) -> bool:
        """Whether the last losses are those of equal representations, and not because training has hardly begun."""
        lines = [line for line in self.newest if line.get("chance", 0) > 0]
        if len(lines) < CHANCE_LINES or lines[-1]["step"] < 10 * CHANCE_LINES:
            return False
        rises = lines[-1].get("lr", 0.0) > lines[0].get("lr", 0.0)
        return not rises and all(abs(line["loss"] / line["chance"] - 1) <= AT_CHANCE for line in lines)

    def _easiness(self, rate: str) -> Alarm | None:
        if not self.easy:
            return None
        step = self.easy["step"]
        when = "before the first step" if step == 0 else f"after {step:.0f} steps"
        first = self.ends[0] if self.ends else {}
        at_first = f" (at first {first['accuracy']:.0f} %)" if step and "accuracy" in first else ""
        return Alarm(
            "too easy",
            f"{when} the other view of {self.easy['accuracy']:.0f} % of the samples is found{at_first}, among "
            f"{self.easy['candidates']:.0f} candidates: the views differ too little to teach much. `nearfar views "
            "DATA` names those that suit the data; smaller crops and stronger changes are harder.",
        )

    def _explosion(self, rate: str) -> Alarm | None:
        if len(self.norms) < 10:
            return None
        *before, a, b, c = self.norms
        usual, now = median(before), fmean((a, b, c))
        if usual == 0 or now <= EXPLODED * usual:
            return None
        return Alarm(
            "exploding gradient",
            f"the gradient is {now / usual:.0f} times as long as usual. Try --clip 1, or a lower {rate}.",
        )

    def _starvation(self, rate: str) -> Alarm | None:
        if len(self.shares) < 5 or min(self.shares) <= STARVED:
            return None
        return Alarm(
            "input starvation",
            f"{self.shares[-1]:.0%} of the time goes to reading samples and making views: the network waits. "
            "Try a smaller --size, samples that fit in memory, or more cores.",
        )

    def _loneliness(self, rate: str) -> Alarm | None:
        if len(self.positives) < 5 or max(self.positives) >= ALONE:
            return None
        return Alarm(
            "few positives",
            f"{self.positives[-1]:.1%} of the samples of a batch find another of their class in it, and the rest teach "
            "nothing. Try a larger --batch, fewer classes (--label-column), or a method with two views.",
        )


def _is_easy(line: Line) -> bool:
    """Whether other views are found too well so early, in units of 255 candidates; of few rows that cannot be told."""
    if "accuracy" not in line or "candidates" not in line:
        return False
    step, rows = line["step"], line["candidates"] + 1
    found = (line["accuracy"] / 100 * rows / (rows + 1)) ** ((2 * ROWS - 1) / line["candidates"])
    if step == 0:
        return found >= EASY_UNTRAINED
    early = step <= EARLY or (step <= FIRST_EPOCH and line.get("epoch", math.inf) <= 1)
    return early and found >= EASY


def alarms(lines: Iterable[Mapping[str, Any]], *, rate: str = "--lr") -> list[Alarm]:
    """What the journal so far gives reason to worry about; nothing, where all is well.

    A loss or a weight that is no longer finite is not among them: it ends the run.
    """
    judge = Judge()
    for line in lines:
        judge.see(line)
    return judge.alarms(rate=rate)
