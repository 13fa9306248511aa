"""The numbers of training: read from the device in bundles, written down, judged, and shown."""

from __future__ import annotations

import math
import time
from collections import deque

import torch
from torch import Tensor

from nearfar import distributed
from nearfar.evaluation.alarms import STARVED, Judge, drift, readings
from nearfar.method import Method
from nearfar.training.options import Diverged, Loop

DRAIN = 50  # steps between two reads of the numbers from the device: each read makes it wait
LINE = 10  # steps that share a line of the journal
OWN = {
    *("step", "epoch", "loss", "chance", "margin", "gradient_norm", "lr", "samples_per_second", "input_share", "knn"),
    *("spread", "effective_rank", "accuracy", "alignment", "uniformity", "drift", "effective_negatives"),
}
"""What the loop itself reads and writes down, by name: no method may call a number of its own so."""


class Log:
    """The numbers of the last steps, left on the device until they are read together."""

    def __init__(self, loop: Loop, method: Method, per_epoch: int, steps: int) -> None:
        self.loop, self.method, self.per_epoch, self.steps = loop, method, per_epoch, steps
        self.kept: list[dict[str, Tensor]] = []
        self.rates: list[float] = []
        self.began = self.since = time.perf_counter()
        self.input_seconds = self.told_seconds = 0.0
        self.newest: deque[dict[str, float]] = deque(maxlen=20)
        self.judge = Judge()
        self.raised: set[str] = set()
        for line in loop.journal.read() if loop.journal is not None else []:
            self.note(line)

    def __len__(self) -> int:
        return len(self.kept)

    def add(self, loss: Tensor, norm: Tensor, more: dict[str, Tensor], lr: float) -> None:
        """The numbers of a step. more: what the method shows."""
        if taken := OWN & more.keys():
            raise ValueError(f"{type(self.method).__name__} logs {min(taken)!r}, a number of the loop's: rename it")
        numbers = {"loss": loss, "gradient_norm": norm} | more
        self.kept.append({name: value.detach() for name, value in numbers.items()})
        self.rates.append(lr)

    def bound(self) -> str:
        """What the speed depended on."""
        share = self.input_seconds / (time.perf_counter() - self.began)
        told = f"{share:.0%} of the time went to reading samples and making views"
        if share < STARVED:
            return f"Compute-bound: {told}, the rest to the networks and the loss."
        return (
            f"Input-bound: {told}. Smaller views (--size), samples that fit in memory, or more cores would speed it up."
        )

    def note(self, line: dict[str, float]) -> None:
        self.newest.append(line)
        self.judge.see(line)

    def drain(self, step: int, negatives: float | None = None) -> None:
        """Read what was left on the device. negatives: per anchor of the last batch, in effect, where that is known."""
        if not self.kept:
            return
        table = torch.stack([torch.stack([row[name].float() for name in row]) for row in self.kept])
        names = list(self.kept[0])
        table = distributed.total(table) / distributed.world()
        losses = table[:, names.index("loss")].tolist()
        now, first = time.perf_counter(), step - len(losses)
        speed = len(losses) * self.loop.batch / (now - self.since)
        waited, self.told_seconds = self.input_seconds - self.told_seconds, self.input_seconds
        times = {"samples_per_second": speed, "input_share": waited / (now - self.since)}
        rates, self.kept, self.rates, self.since = self.rates, [], [], now
        for number, loss in enumerate(losses, step - len(losses) + 1):
            if not math.isfinite(loss):
                raise Diverged(f"the loss became {loss} in step {number}", self.loop)
        chance = self.method.chance(self.loop.batch)
        for start in range(0, len(losses), LINE):
            part = table[start : start + LINE]
            numbers = dict(zip(names, part.mean(0).tolist(), strict=True)) | (
                {} if chance is None else {"chance": chance}
            )
            if self.method.margin is not None:
                numbers["margin"] = self.method.margin
            numbers |= {"lr": rates[start + len(part) - 1]} | times
            if start + len(part) == len(losses) and self.method.representations is not None:
                numbers |= readings(self.method.representations, self.loop.batch // distributed.world())
                numbers |= drift(self.method) | ({} if negatives is None else {"effective_negatives": negatives})
            self.write(first + start + len(part), numbers)

    def write(self, step: int, numbers: dict[str, float]) -> None:
        line = {"step": step, "epoch": step / self.per_epoch} | numbers
        self.note(line)
        if self.loop.journal is not None and distributed.rank() == 0:
            self.loop.journal.write(line)
        self.loop.watch(step, self.steps, numbers)

    def tell(self, epoch: int) -> None:
        """One line on the quality reached, and each alarm the first time that there is reason for it."""
        newest: dict[str, float] = {}
        for line in self.newest:
            newest |= line
        told = [f"loss {newest['loss']:.3f}" + (f" (chance {newest['chance']:.3f})" if "chance" in newest else "")]
        if "accuracy" in newest:
            told.append(f"other view found {newest['accuracy']:.0f} %")
        if "effective_rank" in newest:
            told.append(f"rank {newest['effective_rank']:.0f}, spread {newest['spread']:.2f}")
        if "knn" in newest:
            told.append(f"kNN {newest['knn']:.1f} %")
        self.loop.say(f"Epoch {epoch}: {', '.join(told)}.")
        for alarm in self.judge.alarms():
            if alarm.name not in self.raised:
                self.raised.add(alarm.name)
                self.loop.say(f"Warning, {alarm.name}: {alarm.text}")
