"""What is said of data before any training, whatever their kind: what to mend first, and how to train on them."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from nearfar.batch import MISSING, Batch
from nearfar.data.digests import digests
from nearfar.data.samples import Samples
from nearfar.files import replace_csv
from nearfar.machine import free_memory, pick_device
from nearfar.method import Encoder
from nearfar.methods.simclr import SimCLR
from nearfar.nn.micro_batch import activation_bytes

IMBALANCED = 10.0
"""Times the samples of the smallest class that the largest may have without a word."""


class Copies(NamedTuple):
    """group: N, int64, the same number for samples that belong together, MISSING for those that are alone.
    exact: how many samples are the same as one before them.  near: how many more are nearly so."""

    group: Tensor
    exact: int
    near: int


@dataclass(frozen=True)
class Advice:
    """One choice for `nearfar train`, and why. flag: "" for the method itself."""

    flag: str
    value: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Examination:
    """noun: what the samples are called.  facts: of the data, name and text.  warnings: what to mend.  sound: what was
    looked for.  advice: how to train.  label_column: what the table of groups calls its labels."""

    samples: Samples
    copies: Copies
    noun: str
    facts: list[tuple[str, str]]
    sound: str
    warnings: list[str] = field(default_factory=list)
    advice: list[Advice] = field(default_factory=list)
    label_column: str = "label"

    def command(self, data: str) -> str:
        """The call of `nearfar train` that is advised."""
        method = next(a.value for a in self.advice if not a.flag)
        return " ".join(["nearfar train", method, data, *(f"{a.flag} {a.value}" for a in self.advice if a.flag)])

    def write_groups(self, path: Path) -> None:
        """The samples that have a copy, as a table that --labels reads: path (or index), label, group."""
        samples = self.samples
        rows = [["index" if samples.numbered else "path", self.label_column, "group"]]
        for i, name in enumerate(samples.names):
            label, group = int(samples.label[i]), int(self.copies.group[i])
            if group != MISSING or label != MISSING:
                known = samples.classes[label] if label != MISSING else ""
                rows.append([name, known, f"copies-{group}" if group != MISSING else ""])
        replace_csv(path, rows)


def equal_samples(samples: Samples) -> Copies:
    """The samples whose contents are the same."""
    known = digests(samples)
    count = Counter(known)
    numbers = {digest: number for number, digest in enumerate(digest for digest in count if count[digest] > 1)}
    group = torch.tensor([numbers.get(digest, MISSING) for digest in known])
    return Copies(group, int((group != MISSING).sum()) - len(numbers), 0)


def common_examination(samples: Samples, copies: Copies, noun: str) -> Examination:
    """What can be said of any kind of data."""
    facts = [(noun, f"{len(samples):,}"), ("copies", f"{copies.exact:,} the same"), ("labeled", labeled(samples))]
    advised = method_advice(samples, noun), batch_advice(len(samples), 256)
    return Examination(
        samples=samples,
        copies=copies,
        noun=noun,
        facts=facts,
        sound="no copies, no uneven classes",
        warnings=common_warnings(samples, copies, noun),
        advice=[*advised, epochs_advice(len(samples), int(advised[1].value)), *groups_advice(copies)],
    )


def labeled(samples: Samples) -> str:
    """How many have a label."""
    known = samples.label != MISSING
    return f"{int(known.sum()):,} in {len(samples.classes)} classes" if known.any() else "none"


def common_warnings(samples: Samples, copies: Copies, noun: str) -> list[str]:
    """Of copies and of classes."""
    said = []
    if (copies.group != MISSING).any():
        sets = int(copies.group.max()) + 1
        said.append(
            f"{copies.exact + copies.near:,} {noun} are copies, in {sets:,} sets: as negatives they would be pushed "
            "apart from themselves, and across a split they would flatter the test."
        )
        pairs = {(int(g), int(y)) for g, y in zip(copies.group, samples.label, strict=True) if g >= 0 and y >= 0}
        torn = [g for g, n in Counter(g for g, _ in pairs).items() if n > 1]
        if torn:
            rows = (copies.group == torn[0]).nonzero().flatten().tolist()
            examples = ", ".join(f"{samples.names[i]!r}: {samples.classes[samples.label[i]]}" for i in rows[:3])
            said.append(f"{len(torn):,} sets of copies have more than one label ({examples}).")
    counts = torch.bincount(samples.label[samples.label != MISSING], minlength=len(samples.classes))
    if len(counts) > 1:
        few, many = int(counts.argmin()), int(counts.argmax())
        if int(counts[many]) > IMBALANCED * max(1, int(counts[few])):
            said.append(
                f"The classes are uneven: {samples.classes[many]!r} has {int(counts[many]):,} {noun}, "
                f"{samples.classes[few]!r} {int(counts[few]):,}. Judge by class_accuracy, the mean over classes."
            )
        alone = [samples.classes[i] for i in (counts == 1).nonzero().flatten().tolist()]
        if alone:
            one = noun.removesuffix("s")
            said.append(f"{len(alone):,} classes have one {one}, such as {alone[0]!r}: it can be learned or tested.")
    return said


def method_advice(samples: Samples, noun: str) -> Advice:
    """By labels and number."""
    n, share = len(samples), float((samples.label != MISSING).float().mean())
    if share >= 0.5 and len(samples.classes) > 1:
        return Advice("", "supcon", f"{share:.0%} of the {noun} have labels, which it learns from")
    if n < 1024:
        return Advice("", "moco", f"{n:,} {noun} make small batches; its queue gives negatives all the same")
    return Advice("", "simclr", "few labels or none: the simplest method, and a strong one")


def batch_advice(n: int, usual: int) -> Advice:
    """The usual batch, or an eighth of the samples where they are few."""
    batch = usual if n >= 8 * usual else max(2, 2 ** int(math.log2(max(n / 8, 2.0))))
    return Advice(
        "--batch", str(batch), "large enough for contrast" if batch == usual else "eight steps an epoch or more"
    )


def epochs_advice(n: int, batch: int) -> Advice:
    """As many as make 10,000 steps, within reason."""
    steps = max(1, n // batch)
    epochs = min(1000, max(100, 50 * round(10_000 / steps / 50)))
    return Advice("--epochs", str(epochs), f"{epochs * steps:,} steps; fewer than 10,000 teach little")


def groups_advice(copies: Copies) -> list[Advice]:
    """To give training the table of copies, if there are any."""
    if not (copies.group != MISSING).any():
        return []
    return [Advice("--labels", "GROUPS", "keeps copies out of each other's negatives")]


def estimate(examination: Examination, encoder: Encoder, views: tuple[Tensor, Tensor], setup: str) -> None:
    """Add what a step and an epoch will take, from one step on views of a few samples."""
    device = pick_device("auto")
    batch = int(next(a.value for a in examination.advice if a.flag == "--batch"))
    method = SimCLR(encoder).to(device).train()
    first, second = (view.to(device) for view in views)
    needed = activation_bytes(encoder, first[:4]) * 2 * batch
    index = torch.arange(len(first), device=device)
    seconds = []
    for _ in range(3):  # the first pays for what is only done once
        began = time.perf_counter()
        method(Batch([first, second], index, index)).loss.backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    each = min(seconds) / len(first)
    free = free_memory(device)
    fits = "which fits" if needed < 0.6 * free else f"of {free / 2**30:.0f} free: training takes micro-batches"
    step, epoch = spell(each * batch), spell(each * len(examination.samples))
    examination.facts.append((f"{setup}, {device.type}", f"about {step} a step, {epoch} an epoch"))
    examination.facts.append(("memory", f"about {needed / 2**30:.1f} GiB for a batch of {batch}, {fits}"))


def spell(seconds: float) -> str:
    """A time as one says it."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
