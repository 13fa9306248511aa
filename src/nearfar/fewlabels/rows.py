"""Which labeled samples are learned from, which choose and calibrate, and which measure.

Labeled rows of the split test are only measured; those of the split val, where there are any, choose and calibrate;
of the others so many are learned from as were asked for.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.data.labels import meet, places, present
from nearfar.data.samples import LEARNED, Samples
from nearfar.data.splits import apart, holdout
from nearfar.errors import UserError
from nearfar.method import derive_seed
from nearfar.ranges import NonNegativeInt, UnitInterval, checked

LEARNS = "the samples that are learned from"
FEWEST_HELD = 20
"""Labeled rows without which no temperature is fitted and no epoch chosen: fewer would say too little."""
FEWEST_EACH = 4
"""Labeled rows a class, on the average, from which some are held out of fine-tuning the whole network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Some samples' labels, and the positions of those to learn from, to choose and calibrate by, and to measure by.

    learn, held, test: positions; held is empty where the data name no split val.
    label: N, int64, of all samples, as numbers of `classes`, or MISSING. Numbers behind those are other classes.
    classes: names of those that are learned.
    others: names of other classes, in the order of their numbers.
    notes: what is to be said of classes that do not meet.
    """

    learn: Tensor
    held: Tensor
    test: Tensor
    label: Tensor
    classes: list[str]
    others: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    def of(self, samples: Samples, rows: Tensor) -> Samples:
        """Some of the samples, with these labels."""
        return dataclasses.replace(samples.subset(rows), label=self.label[rows], classes=self.classes)


@checked
def labeled_rows(
    samples: Samples,
    *,
    share: UnitInterval = 0.0,
    per_class: NonNegativeInt = 0,
    seed: int = 0,
    unlabeled: str = "give --labels FILE, or --labels folders",
) -> Rows:
    """Which labeled samples are learned from, and which measure. The classes are those with a label to learn from.

    share, per_class: how many of each class are learned from, drawn by the seed: so many, or an equal part of that
        share of all labeled training rows, at least one (Chen et al. 2020 draw 1 % of ImageNet so); neither takes all.
        More of the same seed hold the fewer.
    unlabeled: what to do where no label is known, for the message.
    Raises ValueError where there are fewer than two classes to learn, or none of them is tested, though others are.
    """
    if share and per_class:
        raise UserError(f"--share {share:g} and --per-class {per_class} both say how many: give one")
    learn, held, test = _by_split(samples, samples.label)
    kept = apart(samples.group, learn, held), apart(samples.group, torch.cat([learn, held]), test)
    copies = len(held) + len(test) - sum(map(len, kept))
    held, test = kept
    if not len(learn):
        raise UserError(
            f"no sample to learn from has a label: {unlabeled}; in a column split, rows to learn from are empty or "
            "train"
        )
    numbers = samples.label[learn].unique().tolist()
    if len(numbers) < 2:
        raise UserError(f"every label is {samples.classes[numbers[0]]!r}: a classifier needs two classes or more")
    if share:
        per_class = max(1, int(share * len(learn) / len(numbers)))
    if per_class:
        generator = torch.Generator().manual_seed(derive_seed(seed, 4))
        drawn = learn[torch.randperm(len(learn), generator=generator)]
        learn = torch.cat([drawn[samples.label[drawn] == c][:per_class] for c in numbers]).sort().values
    label, classes, others = _renumber(samples, [samples.classes[c] for c in numbers])
    return Rows(
        learn=learn,
        held=held,
        test=test,
        label=label,
        classes=classes,
        others=others,
        notes=[
            *([f"{copies:,} labeled samples are of groups on both sides of a split: not measured."] if copies else []),
            *meet(classes, present(samples.label[held], samples.classes), ours=LEARNS, theirs="those of the split val"),
            *meet(
                classes, present(samples.label[test], samples.classes), ours=LEARNS, theirs="those of the split test"
            ),
        ],
    )


def all_rows(samples: Samples, classes: list[str]) -> Rows:
    """All samples to learn from, labeled or not; and the labeled ones of the splits val and test.

    classes: names of those that are known.
    Raises ValueError where the samples have labels, and none of them is one of these.
    """
    notes = meet(classes, present(samples.label, samples.classes), ours="the teacher", theirs="the labels of DATA")
    label, classes, others = _renumber(samples, classes)
    _, held, test = _by_split(samples, label)
    learn = samples.of_split(*LEARNED).nonzero()[:, 0]
    return Rows(learn=learn, held=held, test=test, label=label, classes=classes, others=others, notes=notes)


def hold_out(rows: Rows, group: Tensor, seed: int) -> Rows:
    """The same with some rows to choose by, if the data name none: a stratified fifth, where labels are many enough.

    group: N, of all samples; those of one group stay together.
    """
    if len(rows.held):
        return rows
    known = torch.full_like(rows.label, MISSING)
    known[rows.learn] = rows.label[rows.learn]
    try:
        learn, held = holdout(known, group, share=0.2, seed=seed)
    except ValueError:
        return rows
    each = len(rows.learn) / len(rows.classes)
    if each < FEWEST_EACH or len(held) < FEWEST_HELD or len(rows.label[learn].unique()) < len(rows.classes):
        return rows
    return dataclasses.replace(rows, learn=learn, held=held)


def _by_split(samples: Samples, label: Tensor) -> tuple[Tensor, ...]:
    """Positions of the labeled samples of the splits to learn from, val and test."""
    known = label != MISSING
    return tuple((samples.of_split(*names) & known).nonzero()[:, 0] for names in (LEARNED, ("val",), ("test",)))


def _renumber(samples: Samples, classes: list[str]) -> tuple[Tensor, list[str], list[str]]:
    """Labels as positions in `classes`, found by name; these; and the other classes, numbered behind them."""
    place, others = places(classes, samples.classes)
    number = torch.tensor([*place, MISSING])  # the last stands for MISSING, -1
    return number[samples.label], classes, others
