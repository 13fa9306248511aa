"""What is said of data before any training, whatever their kind: what to mend first, and how to train on them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.data import csv
from nearfar.data.cells import LabelCells, joined_groups
from nearfar.data.digests import digests
from nearfar.data.labels import number
from nearfar.data.samples import LEARNED, Samples
from nearfar.errors import counted
from nearfar.evaluation.intervals import Interval

IMBALANCED = 10.0
"""Times the samples of the smallest class that the largest may have without a word."""


class Copies(NamedTuple):
    """group: N, int64, the same number for samples that are the same or nearly, MISSING for those that are alone.
    same: N, int64, likewise for those that are exactly the same."""

    group: Tensor
    same: Tensor

    @property
    def exact(self) -> int:
        """How many samples are the same as one before them."""
        return _repeated(self.same)

    @property
    def near(self) -> int:
        """How many more are nearly so."""
        return _repeated(self.group) - self.exact


@dataclass(frozen=True)
class Advice:
    """One choice for `nearfar train`, and why. name: of the setting, or "method"."""

    name: str
    value: Any
    reason: str


@dataclass(frozen=True, kw_only=True)
class Examination:
    """noun: what the samples are called.  facts: of the data, name and text.  warnings: what to mend.  sound: what was
    looked for.  flags: what training must be given besides its defaults, and why."""

    samples: Samples
    copies: Copies
    noun: str
    facts: list[tuple[str, str]]
    sound: str
    warnings: list[str] = field(default_factory=list)
    flags: list[Advice] = field(default_factory=list)

    @property
    def learned(self) -> Tensor:
        """Which samples a method may see: N, bool."""
        return self.samples.of_split(*LEARNED)

    @property
    def too_little(self) -> str:
        """Why nothing can be learned from these samples; "" where it can."""
        rows = self.learned
        count, group = int(rows.sum()), self.copies.group[rows]
        if count < 2:
            return f"{counted(count, self.noun)} to train on: contrast needs at least 2."
        if int((group == MISSING).sum()) + len(group[group != MISSING].unique()) < 2:
            return f"All {count:,} {self.noun} to train on are copies of one another: nothing tells them apart."
        return ""

    def to_train(self) -> Samples:
        """The samples that a method may see, with their groups and sets of copies as groups."""
        group = number(self.groups(LabelCells()))[0]
        return replace(self.samples, group=group).subset(self.learned.nonzero()[:, 0])

    def groups(self, given: LabelCells) -> list[str]:
        """The group of each sample, or "": those that are known, joined with the sets of copies.

        given: what a table says of the samples: its names of groups stay.
        """
        column = csv.column(given.header, "group")
        names = [cells.get(column, "") for cells in given.of] if column else [""] * len(self.samples)
        return joined_groups(self.samples.group, self.copies.group, names)


@dataclass(frozen=True)
class Kept:
    """What one change of views leaves of the meaning of samples: see `Kind.meaning`.

    change: its name, as --set has it, or all for the views as they are.  setting: how strong it is, in plain types.
    same: share of neighbors with a sample's label, 0 to 1.  kept: of that without any change.  lost: by how much less
    it is, with its 95 % interval over samples.
    """

    change: str
    setting: Any
    same: float
    kept: float
    lost: Interval


@dataclass(frozen=True)
class Meaning:
    """images: how many were looked at.  chance: the share of others with an image's label.  untouched: the share of
    neighbors with it, where nothing is changed.  views: of each views by name what their changes keep."""

    images: int
    chance: float
    untouched: float
    views: dict[str, list[Kept]]


def _repeated(sets: Tensor) -> int:
    known = sets[sets != MISSING]
    return len(known) - len(known.unique())


def equal_samples(samples: Samples) -> Copies:
    """The samples whose contents are the same."""
    known = digests(samples)
    count = Counter(known)
    numbers = {digest: number for number, digest in enumerate(digest for digest in count if count[digest] > 1)}
    group = torch.tensor([numbers.get(digest, MISSING) for digest in known], dtype=torch.int64)
    return Copies(group, group)


def common_examination(samples: Samples, copies: Copies, noun: str) -> Examination:
    """What can be said of any kind of data."""
    facts = [(noun, f"{len(samples):,}" + parts(samples)), ("copies", f"{copies.exact:,} the same")]
    return Examination(
        samples=samples,
        copies=copies,
        noun=noun,
        facts=[*facts, ("labeled", labeled(samples))],
        sound="no copies, no uneven classes",
        warnings=common_warnings(samples, copies, noun),
    )


def parts(samples: Samples) -> str:
    """How many are of each split, in brackets; "" where none is named."""
    counts = {part: samples.split.count(part) for part in dict.fromkeys(samples.split)}
    named = ", ".join(f"{n:,} {part or 'of no split'}" for part, n in counts.items())
    return f" ({named})" if any(samples.split) else ""


def labeled(samples: Samples) -> str:
    """How many have a label."""
    known = samples.label != MISSING
    return f"{int(known.sum()):,} in {len(samples.classes)} classes" if known.any() else "none"


def common_warnings(samples: Samples, copies: Copies, noun: str) -> list[str]:
    """Of copies, of classes, and of splits without what they need."""
    said = []
    if repeated := copies.exact + copies.near:
        sets = len(copies.group[copies.group != MISSING].unique())
        verb = "is a copy" if repeated == 1 else "are copies"
        said.append(
            f"{counted(repeated, noun)} {verb}, in {counted(sets, 'sets')}: as negatives they would be pushed apart "
            "from themselves, and across a split they would flatter the test."
        )
        pairs = {(int(g), int(y)) for g, y in zip(copies.group, samples.label, strict=True) if g >= 0 and y >= 0}
        torn = [g for g, n in Counter(g for g, _ in pairs).items() if n > 1]
        if torn:
            rows = (copies.group == torn[0]).nonzero().flatten().tolist()
            examples = ", ".join(f"{samples.names[i]!r}: {samples.classes[samples.label[i]]}" for i in rows[:3])
            have = "has" if len(torn) == 1 else "have"
            said.append(f"{counted(len(torn), 'sets')} of copies {have} more than one label ({examples}).")
        said.extend(_across(samples, copies, noun))
    counts = torch.bincount(samples.label[samples.label != MISSING], minlength=len(samples.classes))
    if len(counts) > 1:
        few, many = int(counts.argmin()), int(counts.argmax())
        if int(counts[many]) > IMBALANCED * max(1, int(counts[few])):
            said.append(
                f"The classes are uneven: {samples.classes[many]!r} has {counted(int(counts[many]), noun)}, "
                f"{samples.classes[few]!r} {int(counts[few]):,}. Judge by class_accuracy, the mean over classes."
            )
        alone = [samples.classes[i] for i in (counts == 1).nonzero().flatten().tolist()]
        if alone:
            have = "has" if len(alone) == 1 else "have"
            said.append(
                f"{counted(len(alone), 'classes')} {have} {counted(1, noun)}, such as {alone[0]!r}: it can be learned "
                "or tested."
            )
    known = samples.label != MISSING
    if known.any() and not (known & samples.of_split(*LEARNED)).any():
        said.append(f"No label is of the {noun} to train on: all are of splits that are never learned from.")
    return said


def _across(samples: Samples, copies: Copies, noun: str) -> list[str]:
    """Copies on both sides of a split: how many, and which."""
    said = []
    for learn, test in (("train", "test"), ("train", "val"), ("val", "test")):
        ours = samples.of_split(*(LEARNED if learn == "train" else (learn,))) & (copies.group != MISSING)
        theirs = samples.of_split(test) & torch.isin(copies.group, copies.group[ours])
        theirs &= copies.group != MISSING
        if not (n := int(theirs.sum())):
            continue
        rows = theirs.nonzero()[:, 0].tolist()
        exact = sum(bool(copies.same[i] != MISSING and (copies.same[ours] == copies.same[i]).any()) for i in rows)
        near = f" ({exact:,} the same, {n - exact:,} nearly)" if n > exact else ""
        of = [int((ours & (copies.group == copies.group[i])).nonzero()[0]) for i in rows[:3]]
        pairs = [f"{samples.names[i]!r} of {samples.names[j]!r}" for i, j in zip(rows, of, strict=False)]
        said.append(
            f"{counted(n, noun)} of the split {test} {'is' if n == 1 else 'are'} in {learn} as well{near}: "
            f"{', '.join(pairs)}{', ...' if n > 3 else ''}. With the sets of copies as groups they are not tested."
        )
    return said


def method_advice(samples: Samples, noun: str) -> Advice:
    """By the labels of the samples to train on."""
    rows = samples.of_split(*LEARNED)
    n, label = int(rows.sum()), samples.label[rows]
    share = float((label != MISSING).float().mean()) if n else 0.0
    if share >= 0.5 and len(label[label != MISSING].unique()) > 1:
        return Advice("method", "supcon", f"{share:.0%} of the {noun} have labels, which it learns from")
    return Advice(
        "method", "simclr", "few labels or none: the simplest method, and the best of those that were measured"
    )
