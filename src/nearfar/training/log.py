"""The numbers of training: read from the device in bundles, written down, judged, and shown."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from statistics import fmean

import torch
from torch import Tensor

from nearfar import distributed
from nearfar.errors import UserError
from nearfar.evaluation.alarms import STARVED, Judge, drift, finite, readings
from nearfar.evaluation.progress import Progress
from nearfar.evaluation.scores import PREFIX
from nearfar.method import Method
from nearfar.training.options import Loop, StepResult

DRAIN = 50  # steps between two reads of the numbers from the device: each read makes it wait
LINE = 10  # steps that share a line of the journal
OWN = {
    *("step", "epoch", "loss", "chance", "margin", "gradient_norm", "lr", "samples_per_second", "input_share", "knn"),
    *("spread", "effective_rank", "accuracy", "alignment", "uniformity", "drift", "effective_negatives", "overflowed"),
    *("knn_low", "knn_high", "knn_samples", "knn_bank", "knn_k", "knn_standardized", "knn_right", "checksum"),
    "candidates",
}
"""What the loop itself reads and writes down, by name, besides scores: no method may call a number of its own so."""


class Log:
    """The numbers of the last steps, left on the device until they are read together."""

    def __init__(self, loop: Loop, method: Method, per_epoch: int, steps: int, *, alike: bool = False) -> None:
        self.alike = alike  # whether views are found by nature, which is then no sign that the task is too easy
        self.loop, self.method, self.per_epoch, self.steps = loop, method, per_epoch, steps
        self.kept: list[dict[str, Tensor]] = []
        self.rates: list[float] = []
        self.began = self.since = time.perf_counter()
        self.input_seconds = self.reported_seconds = 0.0
        self.newest: deque[dict[str, float]] = deque(maxlen=20)
        self.judge = Judge(given=loop.given)
        self.progress = Progress(steps, given=loop.given)
        self.raised: set[str] = set()
        self.levels: list[Tensor | None] = []  # of the steps that are kept, chance where it was asked for
        self.chance: float | None = None  # the last known
        self.begun = False  # whether step 0 is measured
        # Where labels are the task, or inputs are kept as they are, views that are found are no sign of an easy task.
        kept = any(getattr(module, "keeps_inputs", False) for module in method.modules())
        self.searches = not (method.needs_labels or kept)
        for line in loop.journal.read() if loop.journal is not None else []:
            self.note(line)
        self.progress.news = ""  # said before

    @property
    def full(self) -> bool:
        """Whether the numbers are to be read after the step that comes next."""
        return len(self.kept) + 1 >= DRAIN

    @contextmanager
    def input(self) -> Iterator[None]:
        """Within: the time goes to reading samples and making views."""
        began = time.perf_counter()
        yield
        self.input_seconds += time.perf_counter() - began

    def add(self, result: StepResult, lr: float) -> None:
        """Keep the numbers of a step."""
        if taken := {name for name in result.out.log if name in OWN or name.startswith(PREFIX)}:
            raise UserError(f"{type(self.method).__name__} logs {min(taken)!r}, a number of the loop's: rename it")
        if result.chance is not None and self.chance is None:
            (self.chance,) = _over_ranks([result.chance])
            self.loop.say(f"A model that gives the same for every sample has a loss of {self.chance:.3f}.")
        self.levels.append(result.chance)
        numbers = {"loss": result.out.loss, "gradient_norm": result.norm} | result.out.log
        kept = {name: torch.as_tensor(value).detach().to(result.norm.device) for name, value in numbers.items()}
        if wide := [name for name, value in kept.items() if value.numel() != 1]:
            shape = tuple(kept[wide[0]].shape)
            raise UserError(f"{type(self.method).__name__} logs {wide[0]!r} of the shape {shape}: log one number")
        self.kept.append({name: value.float().reshape(()) for name, value in kept.items()})
        self.rates.append(lr)

    def bound(self) -> str:
        """What the speed depended on."""
        share = self.input_seconds / (time.perf_counter() - self.began)
        spent = f"{share:.0%} of the time went to reading samples and making views"
        if share < STARVED:
            return f"Compute-bound: {spent}, the rest to the networks and the loss."
        return (
            f"Input-bound: {spent}. Smaller views (--size), samples that fit in memory, or more cores would speed it "
            "up."
        )

    def note(self, line: Mapping[str, float | None]) -> None:
        self.progress.see(line)
        self.judge.see(line)
        line = finite(line)
        self.newest.append(line)
        self.begun = self.begun or line["step"] == 0

    def begin(self, inspected: StepResult, probed: dict[str, float]) -> None:
        """Write down step 0, by which all later readings are judged: the probe and the readings of the first batch.

        inspected: the first step, whose representations are those of the weights before it.
        """
        if numbers := probed | self._readings(inspected):
            self.write(0, numbers)
            if (parts := _quality(numbers)) and not self.loop.quiet:
                self.loop.say(f"Before training: {', '.join(parts)}.")

    def drain(self, step: int, inspected: StepResult | None = None) -> None:
        """Read what was left on the device by the steps up to `step`, and write it down.

        inspected: the last of these steps, where it was inspected. Raises Diverged if a loss is not finite.
        """
        if not self.kept:
            return
        table, logged, names = self._table()
        rates = self.rates
        first, losses = step - len(table), table[:, names.index("loss")].tolist()
        times = self._times(len(table))
        asked = [at for at, level in enumerate(self.levels) if level is not None]
        levels = dict(zip(asked, _over_ranks([level for level in self.levels if level is not None]), strict=True))
        self.kept, self.rates, self.levels = [], [], []
        for number, loss in enumerate(losses, first + 1):
            if not math.isfinite(loss):
                raise self.loop.diverged(f"the loss became {loss} in step {number}")
        for start in range(0, len(table), LINE):
            part = table[start : start + LINE]
            # A step whose gradient overflowed, as in fp16, was left out: so is its norm.
            means = part.masked_fill(~part.isfinite(), math.nan).nanmean(0).tolist()
            there = logged[start : start + LINE].any(0).tolist()
            numbers = {name: mean for name, mean, has in zip(names, means, there, strict=True) if has}
            if overflowed := int((~part[:, names.index("gradient_norm")].isfinite()).sum()):
                numbers["overflowed"] = overflowed
            if known := [level for at, level in levels.items() if start <= at < start + LINE]:
                self.chance = fmean(known)
            numbers |= self._levels() | {"lr": rates[start + len(part) - 1]} | times
            if inspected is not None and start + len(part) == len(table):
                numbers |= self._readings(inspected) | drift(self.method)
            self.write(first + start + len(part), numbers)

    def _table(self) -> tuple[Tensor, Tensor, list[str]]:
        """The numbers of the steps, each the mean over the ranks that logged it; whether any did; and their names.

        What a method logs may come and go. Steps x names, NaN where no rank logged it; and the same, bool.
        """
        rows = self.kept
        names = list(dict.fromkeys(name for row in rows for name in row))
        if distributed.world() > 1:
            names = list(dict.fromkeys(name for known in distributed.exchange(names) for name in known))
        zero = torch.zeros_like(rows[0]["loss"])
        table = torch.stack([torch.stack([row.get(name, zero) for name in names]) for row in rows])
        there = torch.tensor([[name in row for name in names] for row in rows], device=table.device)
        table, count = distributed.total(torch.stack([table, there.to(table)]))
        return table / count, count > 0, names

    def _times(self, steps: int) -> dict[str, float]:
        """Speed and the input's share of the time, since this was last asked."""
        now = time.perf_counter()
        seconds, waited = now - self.since, self.input_seconds - self.reported_seconds
        self.since, self.reported_seconds = now, self.input_seconds
        return {"samples_per_second": steps * self.loop.batch / seconds, "input_share": waited / seconds}

    def _levels(self) -> dict[str, float]:
        """The losses that a method which learns nothing stays at; chance that of the same steps, or the last known."""
        levels = {"chance": self.chance, "margin": self.method.margin}
        return {name: level for name, level in levels.items() if level is not None}

    def _readings(self, inspected: StepResult) -> dict[str, float]:
        """What the representation of one batch and the loss say of the health of training."""
        numbers = readings(inspected.representations or [], self.loop.batch // distributed.world())
        if not self.searches:
            numbers.pop("candidates", None)
        negatives = inspected.negatives
        if self.alike:
            numbers.pop("candidates", None)
        return numbers | ({} if negatives is None else {"effective_negatives": negatives})

    def write(self, step: int, numbers: dict[str, float]) -> None:
        line = {"step": step, "epoch": step / self.per_epoch} | numbers
        self.note(line)
        if self.loop.journal is not None and distributed.rank() == 0:
            self.loop.journal.write(line)
        if self.loop.tell is not None and distributed.rank() == 0:
            self.loop.tell(step, {name: value for name, value in line.items() if name != "step"})
        self.loop.watch(step, self.steps, numbers)

    def measured(self, step: int, numbers: dict[str, float]) -> None:
        """Write down what was measured of the encoder after a step, on the rank that measured it."""
        if numbers:
            self.write(step, numbers)

    def tell(self, epoch: int) -> None:
        """One line on the quality reached, of some epochs; each alarm the first time that there is reason for it."""
        newest: dict[str, float] = {}
        for line in self.newest:
            newest |= line
        parts = [f"loss {newest['loss']:.3f}" + (f" (chance {newest['chance']:.3f})" if "chance" in newest else "")]
        probed = any("knn" in line and line["step"] > (epoch - 1) * self.per_epoch for line in self.newest)
        if not probed:
            newest.pop("knn", None)  # of an earlier epoch
        new = [alarm for alarm in self.judge.alarms() if alarm.name not in self.raised]
        if new or (probed and len(self.loop.probe_after) <= 40) or is_told(epoch, self.loop.epochs):
            self.loop.say(f"Epoch {epoch}: {', '.join([*parts, *_quality(newest)])}.")
        for alarm in new:
            self.raised.add(alarm.name)
            self.loop.say(f"Warning, {alarm.name}: {alarm.text}")
        if probed and self.progress.news:
            self.loop.say(self.progress.news)


def _quality(numbers: Mapping[str, float]) -> list[str]:
    """What readings and the probe say, as one line of an epoch does."""
    parts = []
    if "accuracy" in numbers:
        parts.append(f"other view found {numbers['accuracy']:.0f} %")
    if "effective_rank" in numbers:
        parts.append(f"rank {numbers['effective_rank']:.0f}, spread {numbers['spread']:.2f}")
    if "knn" in numbers:
        parts.append(f"kNN {numbers['knn']:.1f} %")
    return parts


def is_told(number: int, total: int, most: int = 40) -> bool:
    """Whether something is said of one of `total` things that come one after the other: of each of few, else of the
    first and the last, and between them the more seldom the later. So some `most` lines are printed of any number."""
    first = most // 4
    if total <= most or number <= first or number == total:
        return True
    lines = (most - first) / math.log(total / first)
    return int(lines * math.log(number / first)) > int(lines * math.log((number - 1) / first))


def _over_ranks(shares: list[Tensor]) -> list[float]:
    """The means over the ranks of numbers of which each rank has its share."""
    return (distributed.total(torch.stack(shares)) / distributed.world()).tolist() if shares else []
