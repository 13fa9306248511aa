"""Seeded parts of a labeled set: folds and a held-out share, which never split groups; uneven, or even, classes."""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.errors import UserError


def folds(label: Tensor, group: Tensor | None = None, *, folds: int = 5, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Stratified folds of the labeled samples, as pairs (train, test) of rising indices, int64: as many as can be made.

    Each labeled sample is in exactly one test part. The samples of a group are together in one fold; those without a
    group go each their own way. Classes are spread as evenly as their groups allow.

    label: N, int64, or MISSING.  group: N, int64, or MISSING; None: no groups.  folds: at most so many; there are fewer
    where no class has so many labeled samples, or there are fewer groups.
    Raises ValueError where not even two can be made.
    """
    rows, units = _labeled(label, group)
    y = label.cpu()[rows].numpy()
    most = _most(y, units)
    if folds < 2:
        raise UserError(f"{folds} folds were asked for; wanted: 2 or more")
    if most < 2:
        largest, apart = np.bincount(y).max(initial=0), len(np.unique(units))
        raise UserError(
            f"{len(rows)} labeled samples cannot be learned from and tested in turn: the largest class has {largest}, "
            f"and {'all are of one group' if apart == 1 else f'{apart} go apart from each other'}. Label two or more "
            "of a class, in two groups or more, or name rows to test in a column split"
        )
    folds = min(folds, most)
    if len(np.unique(units)) == len(rows):
        fold = _dealt(y, folds, seed)
        parts = [(fold != number, fold == number) for number in range(folds)]
        return [(rows[torch.from_numpy(train)], rows[torch.from_numpy(test)]) for train, test in parts if test.any()]
    from sklearn.model_selection import StratifiedGroupKFold

    splits = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(y, y, units)
    with warnings.catch_warnings():
        # A class with fewer samples than folds is absent from some test parts: no reason to do without the others.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        return [(rows[torch.from_numpy(train)], rows[torch.from_numpy(test)]) for train, test in splits if len(test)]


def given_folds(label: Tensor, group: Tensor, fold: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Folds that are given, as `folds` gives its own; labeled samples in no fold are learned from in each, and those of
    a group that is in another fold too are not tested.

    fold: N, int64, or MISSING.  Raises ValueError where fewer than two have a sample to test.
    """
    rows = (label != MISSING).nonzero().flatten()
    own = fold[rows]
    names = own[own != MISSING].unique().tolist()
    parts = [(rows[own != name], apart(group, rows[own != name], rows[own == name])) for name in names]
    parts = [part for part in parts if len(part[1])]
    if len(parts) < 2:
        raise UserError(
            f"{len(names)} folds with labels are given, {len(parts)} with samples of groups that are in no other fold, "
            "and two or more are wanted: give data without folds, or --labels without groups"
        )
    return parts


def _dealt(y: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold of each sample, the same as that of scikit-learn's StratifiedKFold, which takes a second or two to load.

    The samples, in order of their classes, are dealt to the folds in turn; in each class, who gets which is shuffled.
    """
    _, first, code = np.unique(y, return_index=True, return_inverse=True)
    code = first.argsort().argsort()[code]  # classes by first appearance
    turn = np.arange(len(y)) % folds  # of the samples in order of their classes
    ends = np.bincount(code).cumsum()
    random = np.random.RandomState(seed)
    fold = np.empty(len(y), dtype=np.int64)
    for number, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        own = np.sort(turn[start:end])
        random.shuffle(own)
        fold[code == number] = own
    return fold


def holdout(label: Tensor, group: Tensor | None = None, *, share: float = 0.1, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The labeled samples in two stratified parts, (rest, held out), as rising indices, int64; groups stay whole.

    The held-out part is one fold of 1 / share, or of as many as the labels allow.

    label: N, int64, or MISSING.  group: N, int64, or MISSING; None: no groups.  share: above 0, at most 1/2.
    Raises ValueError where not even two folds can be made.
    """
    if not 0 < share <= 0.5:
        raise UserError(f"The share to hold out is {share}; wanted: above 0, at most 0.5.")
    rows, units = _labeled(label, group)
    y = label.cpu()[rows]
    number = min(round(1 / share), _most(y.numpy(), units))
    if number < 2 or len(np.unique(units)) < len(rows):
        number = max(2, number)
        return folds(label, group, folds=number, seed=seed)[0]
    # Without groups it is every tenth, class after class: training need not wait seconds for scikit-learn to load.
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    order = order[y[order].argsort(stable=True)]
    held = torch.zeros(len(rows), dtype=torch.bool)
    held[order[::number]] = True
    return rows[~held], rows[held]


def apart(group: Tensor, learned: Tensor, tested: Tensor) -> Tensor:
    """Of the positions `tested` those of which no copy, frame or other member of the group is among `learned`.

    group: N, int64, or MISSING.
    """
    both = (group[tested] != MISSING) & torch.isin(group[tested], group[learned])
    return tested[~both]


def long_tail(
    label: Tensor, *, factor: float = 100, profile: Literal["exponential", "step"] = "exponential", seed: int = 0
) -> Tensor:
    """Samples of which the first class has `factor` times as many as the last, as rising indices, int64.

    Class c of C keeps int(n r^(c / (C - 1))) samples, r = 1 / factor, n those of the smallest class; or, as a step, the
    first half of the classes n and the others int(n r). Of CIFAR-10 with 100 that is 12,406, of CIFAR-100 10,847. Which
    ones is random. label: N, int64, or MISSING: such a sample is not kept.  Raises ValueError for one class or none.
    """
    if factor < 1:
        raise UserError(f"The largest class is to be {factor} times the smallest; wanted: 1 or more.")
    label = label.cpu()
    sizes = torch.bincount(label[label != MISSING])
    classes, most = len(sizes), int(sizes.min()) if len(sizes) else 0
    if classes < 2 or not most:
        raise UserError(f"The samples of each class are {sizes.tolist()}; wanted: two classes or more, none empty.")
    generator, kept = torch.Generator().manual_seed(seed), []
    for c in range(classes):
        share = (1 / factor) ** (c / (classes - 1)) if profile == "exponential" else (1, 1 / factor)[2 * c >= classes]
        rows = (label == c).nonzero().flatten()
        kept.append(rows[torch.randperm(len(rows), generator=generator)[: int(most * share)]])
    return torch.cat(kept).sort().values


def as_many_of_each(label: Tensor, *, seed: int = 0) -> Tensor:
    """The labeled samples, repeated until each class has as many as the largest: indices, int64, class by class.

    Each sample of a class comes as often as any other, or once less. What class-balanced sampling gives in the mean.
    label: N, int64, or MISSING.
    """
    label = label.cpu()
    sizes = torch.bincount(label[label != MISSING])
    generator, drawn = torch.Generator().manual_seed(seed), []
    for c in sizes.nonzero().flatten():
        rows = (label == c).nonzero().flatten()
        rows = rows[torch.randperm(len(rows), generator=generator)]
        drawn.append(rows.repeat(-(-int(sizes.max()) // len(rows)))[: int(sizes.max())])
    return torch.cat(drawn) if drawn else label[:0]


def _labeled(label: Tensor, group: Tensor | None) -> tuple[Tensor, np.ndarray]:
    """The labeled rows, and for each the number of what goes together with it: n, and n."""
    rows = (label != MISSING).nonzero().flatten().cpu()
    alone = -1 - rows  # a number that no group has
    own = alone if group is None else group.cpu()[rows]
    return rows, torch.where(own == MISSING, alone, own).numpy()


def _most(y: np.ndarray, units: np.ndarray) -> int:
    """The most folds that can be made."""
    return min(int(np.bincount(y).max(initial=0)), len(np.unique(units)))
