"""What is in a table."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from nearfar.batch import MISSING
from nearfar.data.samples import LEARNED
from nearfar.data.splits import holdout
from nearfar.evaluation.linear import linear, ridge
from nearfar.modalities import recipes
from nearfar.modalities.examination import (
    Advice,
    Copies,
    Examination,
    batch_advice,
    common_warnings,
    epochs_advice,
    equal_samples,
    estimate,
    groups_advice,
    labeled,
    method_advice,
)
from nearfar.modalities.table import views
from nearfar.modalities.table.encoder import TableEncoder
from nearfar.modalities.table.samples import TableSamples

TOLD = 0.95
"""Of the way from chance to certainty: a column that alone tells the label so well is named."""

FEWEST = 10
"""Rows of a class from which anything is concluded of it."""


def examine(rows: TableSamples, *, encoder: str, label_column: str = "label", seed: int = 0) -> Examination:
    """Look at every row, and time one step. encoder: what to time.  label_column: what the labels are called."""
    copies = equal_samples(rows)
    columns, gaps = rows.columns, missing(rows)
    most = sorted(((share, name) for name, share in gaps.items() if share), reverse=True)
    kinds = [len(column.values or ()) for column in columns.categories]
    spread = f", of {min(kinds)} to {max(kinds)} values" if kinds else ""
    facts = [
        ("rows", f"{len(rows):,}" + _parts(rows)),
        ("columns", f"{len(columns.numbers)} numbers, {len(columns.categories)} categories{spread}"),
        ("missing", ", ".join(f"{name} {_percent(share)}" for share, name in most[:6]) or "nothing"),
        ("copies", f"{copies.exact:,} rows the same as one before them"),
        ("labeled", labeled(rows)),
    ]
    if (known := to_beat(rows, seed)) is not None:
        linear, trees, held = known
        text = f"ridge regression {linear:.0%}, boosted trees {trees:.0%} of {held:,} labeled rows right: what to beat"
        facts.append(("raw columns", text))
    if len(most) > 6:
        facts[2] = ("missing", f"{facts[2][1]}, and in {len(most) - 6} more columns")
    sound = "no copies, no uneven classes, no empty columns, none that gives the label away"
    examination = Examination(
        samples=rows, copies=copies, noun="rows", facts=facts, sound=sound, label_column=label_column
    )
    examination.warnings.extend(common_warnings(rows, copies, examination.noun))
    examination.warnings.extend(_across(rows, copies))
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
    examination.advice.extend(_advice(rows, copies))
    few = torch.arange(min(len(rows), 128))
    viewer = views.views(_views(rows), columns, (rows.numbers, rows.codes))
    first, second = viewer(*rows.fetch(few), viewer.draw(len(few), torch.Generator().manual_seed(seed)))
    estimate(examination, TableEncoder(encoder, columns), (first, second), encoder)
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
    from sklearn.tree import DecisionTreeClassifier

    if len(rows.classes) < 2:
        return
    count = torch.bincount(rows.label[rows.of_split(*LEARNED) & (rows.label != MISSING)], minlength=len(rows.classes))
    learned = rows.of_split(*LEARNED) & (rows.label != MISSING)
    which = (learned & (count[rows.label.clamp(min=0)] >= FEWEST)).nonzero()[:, 0].numpy()
    which = np.random.default_rng(seed).permutation(which)[:most]
    known, label = np.unique(rows.label.numpy()[which], return_inverse=True)
    if len(known) < 2:
        return
    half = np.empty(len(label), np.int64)
    order = np.argsort(label, kind="stable")  # every class is halved
    half[order] = np.arange(len(label)) % 2
    numbers, codes = rows.numbers.cpu().numpy()[which], rows.codes.cpu().numpy()[which]

    def accuracy(guesses: np.ndarray) -> float:
        return float(np.mean([(guesses[label == k] == k).mean() for k in range(len(known))]))

    for c, name in enumerate(rows.columns.names):
        guesses = np.full(len(label), -1)
        for side in (0, 1):
            learn, test = half != side, half == side
            if c < numbers.shape[1]:  # leaves of some rows, so that a slip or two hides nothing
                tree = DecisionTreeClassifier(
                    max_leaf_nodes=4 * len(known), min_samples_leaf=3, class_weight="balanced", random_state=seed
                )
                guesses[test] = tree.fit(numbers[learn, c : c + 1], label[learn]).predict(numbers[test, c : c + 1])
            else:
                code = codes[:, c - numbers.shape[1]] + 1
                seen = np.zeros((code.max() + 1, len(known)))
                np.add.at(seen, (code[learn], label[learn]), 1)
                seen /= np.maximum(1, seen.sum(0))  # classes count alike
                guesses[test] = np.where(seen[code[test]].any(1), seen[code[test]].argmax(1), -1)
        mean_accuracy, chance = accuracy(guesses), 1 / len(known)
        if (mean_accuracy - chance) / (1 - chance) >= TOLD:
            yield name, mean_accuracy


def to_beat(rows: TableSamples, seed: int = 0, most: int = 2000) -> tuple[float, float, int] | None:
    """What needs no encoder: the accuracy of a linear classifier and of trees on the columns, and on how many rows.

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
    trees = HistGradientBoostingClassifier(max_iter=30, categorical_features=kinds or None, random_state=seed)
    right = trees.fit(table[rest], label[rest]).predict(table[held]) == label[held].numpy()
    return float(told), float(right.mean()), len(held)


def _across(rows: TableSamples, copies: Copies) -> list[str]:
    """Rows that are tested and also learned from."""
    learned = copies.group[rows.of_split(*LEARNED)]
    both = int(torch.isin(copies.group[rows.of_split("test")], learned[learned != MISSING]).sum())
    return [f"{both:,} rows of the split test are in train as well: leave them out of the test."] if both else []


def _parts(rows: TableSamples) -> str:
    counts = {part: rows.split.count(part) for part in dict.fromkeys(rows.split) if part}
    return f" ({', '.join(f'{n:,} {part}' for part, n in counts.items())})" if counts else ""


def _views(rows: TableSamples) -> str:
    return "scarf" if len(rows.columns) > 1 else "mixed"


def _advice(rows: TableSamples, copies: Copies) -> list[Advice]:
    n = sum(part in ("", "train") for part in rows.split) or len(rows)
    method, batch = method_advice(rows, "rows"), batch_advice(n, 128)
    name = _views(rows)
    why = {
        "scarf": "a row beside itself with columns of other rows: what goes together is learned",
        "mixed": "of a single column nothing can be exchanged, so rows are blended",
    }
    temperature = recipes.load("measured_tables", method.value, "table").method["temperature"]
    return [
        method,
        batch,
        Advice("--views", name, why[name]),
        Advice("--temperature", f"{temperature:g}", f"what was best on many tables, of {method.value}"),
        epochs_advice(n, int(batch.value)),
        *([] if (rows.group != MISSING).any() else groups_advice(copies)),
    ]


def _percent(share: float) -> str:
    return f"{share:.0%}" if 0.1 <= share < 0.995 else f"{share:.2%}"
