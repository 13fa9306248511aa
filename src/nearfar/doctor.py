"""What is in a folder, before any training: what to mend first, and how to train on what is there."""

from __future__ import annotations

import csv
import io
import math
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch

from nearfar.batch import MISSING, Batch
from nearfar.data.image import Images
from nearfar.duplicates import Duplicates, duplicates
from nearfar.encoders.image import image_encoder
from nearfar.files import replace_text
from nearfar.machine import free_memory
from nearfar.methods.simclr import SimCLR
from nearfar.micro_batch import activation_bytes

IMBALANCED = 10.0
"""Times the samples of the smallest class that the largest may have without a word."""


@dataclass(frozen=True)
class Advice:
    """One choice for `nearfar train`, and why. flag: "" for the method itself."""

    flag: str
    value: str
    reason: str


@dataclass(frozen=True)
class Examination:
    """facts: of the data, name and text.  warnings: what to mend.  advice: how to train."""

    images: Images
    copies: Duplicates
    facts: list[tuple[str, str]]
    warnings: list[str] = field(default_factory=list)
    advice: list[Advice] = field(default_factory=list)

    def command(self, data: str) -> str:
        """The call of `nearfar train` that is advised."""
        method = next(a.value for a in self.advice if not a.flag)
        return " ".join(["nearfar train", method, data, *(f"{a.flag} {a.value}" for a in self.advice if a.flag)])

    def write_groups(self, path: Path) -> None:
        """The samples that have a copy, as a table that --labels reads: path (or index), label, group."""
        images, rows = self.images, io.StringIO()
        by_index = all(name == str(i) for i, name in enumerate(images.names))
        table = csv.writer(rows, lineterminator="\n")
        table.writerow(["index" if by_index else "path", "label", "group"])
        for i, name in enumerate(images.names):
            label, group = int(images.label[i]), int(self.copies.group[i])
            if group != MISSING or label != MISSING:
                known = images.classes[label] if label != MISSING else ""
                table.writerow([name, known, f"copies-{group}" if group != MISSING else ""])
        replace_text(path, rows.getvalue())


def examine(images: Images, *, encoder: str, size: int) -> Examination:
    """Look at every picture, and time one step. encoder, size: what to time, and the side of its views."""
    copies = duplicates(images)
    known = images.label != MISSING
    aspect = images.aspect.quantile(torch.tensor([0.05, 0.5, 0.95])).tolist()
    facts = [
        ("pictures", f"{len(images):,}"),
        ("channels", {1: "1 (grey)", 3: "3 (colour)"}.get(images.channels, str(images.channels))),
        ("width / height", f"{aspect[1]:.2f} in the middle, {aspect[0]:.2f} to {aspect[2]:.2f} for nine in ten"),
        ("kept as", f"squares of {images.side} px" + ("" if images.cached else ", decoded anew each time")),
        ("copies", f"{copies.exact:,} the same pixel by pixel, {copies.near:,} nearly the same"),
        ("labelled", f"{int(known.sum()):,} in {len(images.classes)} classes" if known.any() else "none"),
    ]
    found = Examination(images, copies, facts)
    found.warnings.extend(_warnings(images, copies))
    found.advice.extend(_advice(images, copies))
    _estimate(found, encoder, size)
    return found


def _warnings(images: Images, copies: Duplicates) -> list[str]:
    said = []
    if images.skipped:
        first = ", ".join(f"{name!r} ({why})" for name, why in images.skipped[:3])
        more = ", ..." if len(images.skipped) > 3 else ""
        said.append(f"{len(images.skipped):,} files cannot be read: {first}{more}. Training leaves them out.")
    if (copies.group != MISSING).any():
        sets = int(copies.group.max()) + 1
        said.append(
            f"{copies.exact + copies.near:,} pictures are copies, in {sets:,} sets: as negatives they would be pushed "
            "apart from themselves, and across a split they would flatter the test."
        )
        pairs = {(int(g), int(y)) for g, y in zip(copies.group, images.label, strict=True) if g >= 0 and y >= 0}
        torn = [g for g, n in Counter(g for g, _ in pairs).items() if n > 1]
        if torn:
            rows = (copies.group == torn[0]).nonzero().flatten().tolist()
            told = ", ".join(f"{images.names[i]!r}: {images.classes[images.label[i]]}" for i in rows[:3])
            said.append(f"{len(torn):,} sets of copies have more than one label ({told}).")
    counts = torch.bincount(images.label[images.label != MISSING], minlength=len(images.classes))
    if len(counts) > 1:
        few, many = int(counts.argmin()), int(counts.argmax())
        if int(counts[many]) > IMBALANCED * max(1, int(counts[few])):
            said.append(
                f"The classes are uneven: {images.classes[many]!r} has {int(counts[many]):,} pictures, "
                f"{images.classes[few]!r} {int(counts[few]):,}. Judge by class_accuracy, the mean over classes."
            )
        alone = [images.classes[i] for i in (counts == 1).nonzero().flatten().tolist()]
        if alone:
            said.append(f"{len(alone):,} classes have one picture, such as {alone[0]!r}: it can be learnt or tested.")
    return said


def _advice(images: Images, copies: Duplicates) -> list[Advice]:
    n, labelled = len(images), float((images.label != MISSING).float().mean())
    given = []
    if labelled >= 0.5 and len(images.classes) > 1:
        given.append(Advice("", "supcon", f"{labelled:.0%} of the pictures have labels, which it learns from"))
    elif n < 1024:
        given.append(Advice("", "moco", f"{n:,} pictures make small batches; its queue gives negatives all the same"))
    else:
        given.append(Advice("", "simclr", "few labels or none: the simplest method, and a strong one"))
    batch = 256 if n >= 2048 else max(2, 2 ** int(math.log2(max(n / 8, 2.0))))
    why = "large enough for contrast" if batch == 256 else "eight steps an epoch or more"
    given.append(Advice("--batch", str(batch), why))
    if images.channels == 1 and images.side <= 64:
        given.append(Advice("--views", "drawing", "small and grey: shape counts, and colours are not there to change"))
    elif images.channels == 3:
        given.append(Advice("--views", "simclr", "colour pictures: crops and colour changes, the usual recipe"))
    if given[0].value in ("simclr", "moco"):
        given.append(Advice("--temperature", "0.2", "for batches and queues of this size; lower pushes harder"))
    steps = max(1, n // batch)
    epochs = min(1000, max(100, 50 * round(10_000 / steps / 50)))
    given.append(Advice("--epochs", str(epochs), f"{epochs * steps:,} steps; fewer than 10,000 teach little"))
    if (copies.group != MISSING).any():
        given.append(Advice("--labels", "GROUPS", "keeps copies out of each other's negatives"))
    return given


def _estimate(found: Examination, name: str, size: int) -> None:
    """Add what an epoch will take, from one step of a few samples."""
    images, few = found.images, 16
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batch = int(next(a.value for a in found.advice if a.flag == "--batch"))
    encoder = image_encoder(name, channels=images.channels, size=size)
    method = SimCLR(encoder).to(device).train()
    view = torch.rand(few, images.channels, size, size, device=device)
    needed = activation_bytes(encoder, view[:4]) * 2 * batch
    index = torch.arange(few, device=device)
    seconds = []
    for _ in range(3):  # the first pays for what is only done once
        began = time.perf_counter()
        method(Batch([view, view.flip(3)], index, index)).loss.backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    epoch = min(seconds) / few * len(images)
    free = free_memory(device)
    fits = "which fits" if needed < 0.6 * free else f"of {free / 2**30:.0f} free: training takes micro-batches"
    found.facts.append((f"{name}, {size} px, {device.type}", f"about {_time(epoch)} an epoch"))
    found.facts.append(("memory", f"about {needed / 2**30:.1f} GiB for a batch of {batch}, {fits}"))


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
