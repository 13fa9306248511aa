"""What is in a table."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.data.samples import LEARNED
from nearfar.data.splits import holdout
from nearfar.errors import counted
from nearfar.evaluation.linear import linear, ridge
from nearfar.modalities.examination import Examination, common_warnings, equal_samples, labeled, parts
from nearfar.modalities.table import views
from nearfar.modalities.table.samples import TableSamples

TARGETS = frozenset(
    (
        *("label", "labels", "target", "class", "classes", "y", "outcome", "response", "category", "result", "grade"),
        *("diagnosis", "income", "survived", "churn", "species", "default", "fraud", "quality"),
    )
)
"""Names of columns that tables mostly give to what is to be told, in any case and with any marks about them."""

TOLD = 0.95
"""Of the way from chance to certainty: a column that alone tells the label so well is named."""

FEWEST = 10
"""Rows of a class from which anything is concluded of it."""

FORETOLD = 0.5
"""Of the way from chance to certainty: a first or last column that the others tell so well may be a label."""

FEW = 20
"""Values of a column that may be a label."""


def examine(rows: TableSamples, *, seed: int = 0) -> Examination:
    """Look at every row."""
    copies = equal_samples(rows)
    columns, gaps = rows.columns, missing(rows)
    most = sorted(((share, name) for name, share in gaps.items() if share), reverse=True)
    kinds = [len(column.values or ()) for column in columns.categories]
    spread = f", of {' to '.join(map(str, dict.fromkeys((min(kinds), max(kinds)))))} values" if kinds else ""
    numbers, categories = counted(len(columns.numbers), "numbers"), counted(len(columns.categories), "categories")
    facts = [
        ("rows", f"{len(rows):,}" + parts(rows)),
        ("columns", f"{numbers}, {categories}{spread}"),
        ("missing", ", ".join(f"{name} {_percent(share)}" for share, name in most[:6]) or "nothing"),
        ("copies", f"{counted(copies.exact, 'rows')} the same as one before"),
        ("labeled", labeled(rows)),
    ]
    if (known := to_beat(rows, seed)) is not None:
        linear, trees, learned, held = known
        right = f"ridge regression {linear:.0%}, boosted trees {trees:.0%} of {held:,} labeled rows right"
        facts.append(("raw columns", f"{right}, learned from {learned:,} others: what to beat"))
    if len(most) > 6:
        facts[2] = ("missing", f"{facts[2][1]}, and in {len(most) - 6} more columns")
    sound = "no copies, no uneven classes, no empty columns, none that gives the label away or looks like a label"
    examination = Examination(samples=rows, copies=copies, noun="rows", facts=facts, sound=sound)
    examination.warnings.extend(common_warnings(rows, copies, examination.noun))
    examination.warnings.extend(
        f"The column {name!r} is an input, and may be what you want to tell ({why}): if so, give --label-column "
        f"{shlex.quote(name)}, or leave it out by --drop {shlex.quote(name)}."
        for name, why in targets(rows, seed)
    )
    examination.warnings.extend(
        f"The column {name!r} is empty in {_percent(share)} of the rows: that it is empty will count more than what it "
        "says."
        for share, name in most
        if share > 0.5
    )
    examination.warnings.extend(
        f"The column {name!r} alone tells the label ({_percent(accuracy)} right, as the mean over classes): if it is "
        "known only once the label is, leave it out by --drop."
        for name, accuracy in telling(rows, seed)
    )
    return examination


def missing(rows: TableSamples) -> dict[str, float]:
    """The share of the rows in which each column says nothing."""
    columns = rows.columns
    shares = rows.numbers.isnan().double().mean(0).tolist()
    for b, column in enumerate(columns.categories):
        empty = (rows.codes[:, b] == len(column.values or ())) if column.gaps else torch.zeros(1)
        shares.append(float(empty.double().mean()))
    return dict(zip(columns.names, shares, strict=True))


def telling(rows: TableSamples, seed: int = 0, most: int = 50_000) -> Iterator[tuple[str, float]]:
    """The columns that alone tell the label nearly perfectly, and their accuracy as the mean over classes.

    A category tells by the class that is most frequent in it, a number by thresholds: learned on one half of the
    labeled training rows and tested on the other, both ways. Classes of fewer than `FEWEST` rows do not count.
    most: rows to look at.
    """
    which, label = _halved(rows, rows.label, seed, most)
    classes = label.max(initial=-1) + 1
    if classes < 2:
        return
    for c, name in enumerate(rows.columns.names):
        mean_accuracy, chance = _accuracy(_inputs(rows, which)[:, [c]], label, rows, [c], seed), 1 / classes
        if (mean_accuracy - chance) / (1 - chance) >= TOLD:
            yield name, mean_accuracy


def targets(rows: TableSamples, seed: int = 0, most: int = 10_000) -> Iterator[tuple[str, str]]:
    """The inputs that look like a label, and why: by their name; or, where no label is known, as the first or last
    column, of few values that the other columns tell (codes need not be told so well).  most: rows to look at."""
    columns = rows.columns
    known = {rows.label_column.casefold()} - {""}
    labeled = bool((rows.label != MISSING).any())
    given = [name for name in rows.order if name in columns.names]
    for c, name in enumerate(columns.names):
        if re.sub(r"[\W_]", "", name.casefold()) in TARGETS or name.casefold() in known:
            yield name, f"it is called {name!r}"
            continue
        code = _codes(rows, c)
        values = int(code.max()) + 1
        if labeled or name not in (*given[:1], *given[-1:]) or not 2 <= values <= FEW or len(columns) < 2:
            continue
        at = "first" if name == given[0] else "last"
        least = FORETOLD / 3 if _are_codes(rows, c) else FORETOLD
        which, label = _halved(rows, code, seed, most)
        classes = label.max(initial=-1) + 1
        if classes < 2:
            continue
        others = [other for other in range(len(columns)) if other != c]
        accuracy = _accuracy(_inputs(rows, which)[:, others], label, rows, others, seed)
        if (accuracy - 1 / classes) * classes / (classes - 1) >= least:
            yield name, f"the {at} column, of {values} values, which the others tell: {_percent(accuracy)} right"


def to_beat(rows: TableSamples, seed: int = 0, most: int = 2000) -> tuple[float, float, int, int] | None:
    """What needs no encoder: the accuracy of a linear classifier and of trees on the columns; and from how many rows
    they learned, and on how many they were tested.

    Learned from three quarters of the labeled training rows, `most` at most, and told on the rest; None where classes
    of `FEWEST` rows are not at least two, or hold fewer than a hundred.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    learned = (rows.of_split(*LEARNED) & (rows.label != MISSING)).nonzero()[:, 0]
    learned = learned[torch.randperm(len(learned), generator=torch.Generator().manual_seed(seed))[:most]]
    often = torch.bincount(rows.label[learned], minlength=len(rows.classes)) >= FEWEST
    learned = learned[often[rows.label[learned]]]
    if int(often.sum()) < 2 or len(learned) < 100:
        return None
    label = rows.label[learned].unique(return_inverse=True)[1]
    rest, held = holdout(label, rows.group[learned], share=0.25, seed=seed)
    numbers, codes = rows.numbers[learned].cpu(), rows.codes[learned].cpu()
    x = views.expand(rows.columns, numbers, codes)
    told = linear(x[rest], label[rest], x[held], label[held], solver=ridge)["accuracy"] / 100
    table = torch.cat([numbers, codes], 1).numpy()
    kinds = [numbers.shape[1] + b for b, column in enumerate(rows.columns.categories) if column.width < 255]
    given: dict[str, Any] = {"categorical_features": kinds or None}  # of which the type that is declared knows nothing
    trees = HistGradientBoostingClassifier(max_iter=30, random_state=seed, **given)
    right = trees.fit(table[rest], label[rest]).predict(table[held]) == label[held].numpy()
    return float(told), float(right.mean()), len(rest), len(held)


def _codes(rows: TableSamples, c: int) -> Tensor:
    """The values of a column as numbers from 0, MISSING where there is none."""
    first = len(rows.columns.numbers)
    if c >= first:
        code = rows.codes[:, c - first].cpu()
        return torch.where(code < len(rows.columns.categories[c - first].values or ()), code, MISSING)
    number = rows.numbers[:, c].cpu()
    values, code = number.unique(return_inverse=True)  # NaN are the last, each its own
    return torch.where(number.isnan(), MISSING, code) if len(values) else code


def _are_codes(rows: TableSamples, c: int) -> bool:
    """Whether the values of a column of numbers are 0, 1, 2 and so on, or begin with 1."""
    column = (*rows.columns.numbers, *rows.columns.categories)[c]
    if column.values is not None or column.time:
        return False
    number = rows.numbers[:, c].cpu()
    values = sorted({float(column.shown(value)) for value in number[~number.isnan()].unique().tolist()})
    return len(values) > 1 and values[0] in (0, 1) and values == [values[0] + i for i in range(len(values))]


def _inputs(rows: TableSamples, which: np.ndarray) -> np.ndarray:
    """Numbers and codes of some rows, n x (A + B)."""
    return np.concatenate([rows.numbers.cpu().numpy()[which], rows.codes.cpu().numpy()[which]], 1)


def _halved(rows: TableSamples, label: Tensor, seed: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Training rows with a label, of classes of `FEWEST` rows or more, in random order; and their classes, from 0."""
    learned = rows.of_split(*LEARNED) & (label != MISSING)
    count = torch.bincount(label[learned], minlength=1)
    which = (learned & (count[label.clamp(min=0, max=len(count) - 1)] >= FEWEST)).nonzero()[:, 0].numpy()
    which = np.random.default_rng(seed).permutation(which)[:most]
    return which, np.unique(label.numpy()[which], return_inverse=True)[1]


def _accuracy(inputs: np.ndarray, label: np.ndarray, rows: TableSamples, columns: list[int], seed: int) -> float:
    """How often columns tell the label, as the mean over classes: learned on one half, tested on the other, both ways.

    A category alone tells by its most frequent class; numbers, and several columns, by a small tree.
    """
    from sklearn.tree import DecisionTreeClassifier

    classes = label.max() + 1
    half = np.empty(len(label), np.int64)
    half[np.argsort(label, kind="stable")] = np.arange(len(label)) % 2  # every class is halved
    guesses = np.full(len(label), -1)
    for side in (0, 1):
        learn, test = half != side, half == side
        if len(columns) == 1 and columns[0] >= len(rows.columns.numbers):
            code = inputs[:, 0].astype(np.int64) + 1
            seen = np.zeros((code.max() + 1, classes))
            np.add.at(seen, (code[learn], label[learn]), 1)
            seen /= np.maximum(1, seen.sum(0))  # classes count alike
            guesses[test] = np.where(seen[code[test]].any(1), seen[code[test]].argmax(1), -1)
        else:  # leaves of some rows, so that a slip or two hides nothing
            tree = DecisionTreeClassifier(
                max_leaf_nodes=max(16, 4 * classes), min_samples_leaf=3, class_weight="balanced", random_state=seed
            )
            guesses[test] = tree.fit(inputs[learn], label[learn]).predict(inputs[test])
    return float(np.mean([(guesses[label == k] == k).mean() for k in range(classes)]))


def _percent(share: float) -> str:
    return f"{share:.0%}" if 0.1 <= share < 0.995 else f"{share:.2%}"
