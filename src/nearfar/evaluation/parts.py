"""Which samples an evaluation learns from, and which it tests."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.data.labels import places
from nearfar.data.samples import LEARNED, Samples
from nearfar.data.splits import apart, folds, given_folds
from nearfar.errors import UserError


def learned_and_tested(
    samples: Samples,
    given: Tensor | None,
    usual: int,
    seed: int,
    say: Callable[[str], None],
    noun: str,
    unlabeled: str,
) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """The split that the data name, or the folds that they bring, or stratified folds, as many as are usual or as can
    be: pairs (learned, tested) of positions, int64; and all positions tested.

    given: N, int64, the fold of each sample, where the data bring any.  usual: how many folds are made where they
    bring none.  noun, unlabeled: what the samples are called, and what to do where none has a label.
    Raises ValueError where no labels are known, or only those of rows of the split test.
    """
    known = samples.label != MISSING
    if not known.any():
        raise UserError(f"evaluating takes labels, and none are known: {unlabeled}")
    test = samples.of_split("test") & known
    train = samples.of_split(*LEARNED) & known
    if test.any() and train.any():
        learned, tested = train.nonzero()[:, 0], test.nonzero()[:, 0]
        kept = apart(samples.group, learned, tested)
        of = f"{len(tested) - len(kept):,} of {len(tested):,} {noun} of the split test"
        if not len(kept):
            raise UserError(f"{of} are of groups that are learned from: no group may be on both sides of a split")
        if len(kept) < len(tested):
            say(f"{of} are of groups that are learned from, such as copies: they are not tested.")
        return [(learned, kept)], kept
    if test.any():
        raise UserError(
            f"all labels are of {noun} of the split test, which are never learned from: give DATA with "
            "labels in the split train, and these as --test"
        )
    if given is not None:
        parts = given_folds(samples.label, samples.group, given)
        tested = torch.cat([test for _, test in parts])
        if out := int(known.sum()) - len(tested):
            say(
                f"{out:,} labeled {noun} are in no fold of those given, or have copies in another one: "
                "they are only learned from."
            )
        return parts, tested
    parts = folds(samples.label, samples.group, folds=usual, seed=seed)
    if len(parts) < usual:
        say(
            f"{len(parts)} folds instead of {usual}: the labels allow no more, as no class has more "
            f"labeled {noun}, or there are no more groups."
        )
    return parts, torch.cat([tested for _, tested in parts])


def together(parts: list[Samples]) -> tuple[Tensor, list[str], Tensor]:
    """Label, classes and group of several data as of one: classes are the same by name, groups never."""
    classes: list[str] = []
    label, group, used = [], [], 0
    for samples in parts:
        place, others = places(classes, samples.classes)
        classes += others
        of = torch.tensor([*place, MISSING])  # the last stands for MISSING, -1
        label.append(of[samples.label])
        group.append(torch.where(samples.group == MISSING, MISSING, samples.group + used))
        used += int(samples.group.max().clamp(min=-1)) + 1
    return torch.cat(label), classes, torch.cat(group)


def of_other_data(parts: list[Samples], label: Tensor) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """The first data to learn from and the second to test, as one split."""
    known = label != MISSING
    is_test = torch.arange(len(label)) >= len(parts[0])
    learn, test = (known & ~is_test).nonzero()[:, 0], (known & is_test).nonzero()[:, 0]
    if not len(learn) or not len(test):
        which = "data to learn from" if not len(learn) else "test data"
        raise UserError(f"none of the {which} has a label: give --labels, and for --test data --test-labels")
    return [(learn, test)], test
