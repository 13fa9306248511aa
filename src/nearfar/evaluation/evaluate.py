"""The evaluation that a run ends with: neighbors, a linear classifier and few labels, on features computed once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.errors import UserError
from nearfar.evaluation.held import Scale
from nearfar.evaluation.intervals import of_answers, wilson
from nearfar.evaluation.knn import KS, knn_chosen, neighbors
from nearfar.evaluation.kshot import few_labels_in_folds
from nearfar.evaluation.linear import STRENGTHS, Solver, linear_scores, logistic
from nearfar.evaluation.protocol import Result, labeled, packed, per_class, result
from nearfar.evaluation.svm import svm_answers

RECALLS = (1, 5)
"""Of so many training samples nearest to a test sample one must be of its class, as papers on videos have retrieval."""

_WAYS = ("as they are", "standardized")

SEEN = (
    "The test samples were in pre-training: this says how well the encoder sorts samples it has seen, not how well it "
    "will do on new ones."
)


def evaluate(
    feature: Tensor,
    label: Tensor,
    splits: Sequence[tuple[Tensor, Tensor]],
    *,
    group: Tensor | None = None,
    seen_in_training: bool,
    ks: Sequence[int] = KS,
    scaled: Sequence[bool] = (False, True),
    temperature: float = 0.07,
    solver: Solver = logistic,
    strengths: Sequence[float] = STRENGTHS,
    shots: Sequence[int] = (),
    svm: bool = False,
    retrieval: bool = False,
    draws: int = 10,
    seed: int = 0,
) -> dict[str, Result]:
    """Results by name: "knn", "linear", with `svm` "svm", with `retrieval` "recall_1" and "recall_5" (one of so many
    nearest training rows is of the class), and for each of `shots` "few_labels_<shots>".

    feature: N x D.  label: N; rows without label take no part.  splits: positions (train, test) of one given split, or
    of each fold; every sample is tested at most once, and the answers of all folds are judged together.
    group: N, samples that belong together; never on both sides of a split, and drawn together in the intervals.
    seen_in_training: whether the test samples were pre-trained on, which the notes then say.  shots: labels per class,
    drawn from the training part of each split.
    ks, scaled, strengths: k of the neighbors, whether features are standardized, and the strength of the linear
    classifier are chosen from these on training rows of each split, for each measure by itself: see `knn_chosen`,
    `linear_fit` and `few_labels_in_folds`. What was chosen is in the protocol.
    Each result has accuracy with its 95 % interval over test samples (or groups) and, of few labels, draws: low and
    high; and right, which answers are right, as `packed` writes them. Each of knn and linear has class_accuracy and
    per_class, the accuracy of each class by its number, all in per cent; and confusion, how many samples of which
    class were taken for which: [class, answer, count] wherever there are any.
    """
    x, y, index = labeled(feature, label, "given")
    own = None if group is None else group.to(x.device)[index]
    parts = _checked(splits, index, own, len(label))
    notes = [SEEN] if seen_in_training else []
    common = {"splits": len(parts), "seen_in_training": seen_in_training, "seed": seed}
    tested = torch.cat([test for _, test in parts])
    results = {"knn": _knn(x, y, parts, own, ks, scaled, temperature, common, notes)}

    results["linear"] = _linear(x, y, parts, own, solver, strengths, scaled, common, notes)

    if svm:
        named, chosen, caution = [], [], []
        for train, test in parts:
            inner = None if own is None else own[train]
            answer, config, said = svm_answers(x[train], y[train], x[test], group=inner, seed=seed)
            named.append(answer.to(x.device))
            chosen.append(config)
            caution += [note for note in said if note not in caution]
        svm_config = {"chosen": _counts([f"C {one['C']:g}" for one in chosen]), "choices": chosen, **common}
        results["svm"] = summary("svm", torch.cat(named), y, own, tested, svm_config, notes + caution, seed)

    for k in RECALLS if retrieval else ():
        hits = torch.cat([_found(x, y, train, test, k) for train, test in parts])
        mean, low, high = of_answers(hits, group=None if own is None else own[tested], seed=seed)
        numbers = {"accuracy": mean, "low": low, "high": high, "right": packed(hits)}
        config = {"similarity": "cosine", "standardized": False, **common, "test": len(hits)}
        results[f"recall_{k}"] = result(f"recall@{k}", numbers, config, list(notes))

    folds = [(x[train], y[train], x[test], y[test]) for train, test in parts] if shots else []
    groups = None if own is None else own[tested]
    for count in shots:
        few = few_labels_in_folds(folds, group=groups, shots=count, draws=draws, scaled=scaled, seed=seed)
        few["protocol"]["notes"] += notes
        few["protocol"]["seen_in_training"] = seen_in_training
        results[f"few_labels_{count}"] = few
    return results


def _found(x: Tensor, y: Tensor, train: Tensor, test: Tensor, k: int) -> Tensor:
    """Whether the k nearest training rows of each test row, by cosine, hold one of its class: bool."""
    nearest = neighbors(x[test], x[train], min(k, len(train)))[1]
    return (y[train][nearest] == y[test][:, None]).any(1)


def evaluate_knn(
    feature: Tensor, label: Tensor, splits: Sequence[tuple[Tensor, Tensor]], *, group: Tensor | None = None, seed: int
) -> Result:
    """What `evaluate` gives as "knn", alone: the probe that watches training is this one too.

    held_out, of it: accuracy with low and high, on so many samples, of training rows that were held out to choose, at
    the choice. Where it is far from the accuracy on test rows, these are of another kind than those learned from.
    """
    x, y, index = labeled(feature, label, "given")
    own = None if group is None else group.to(x.device)[index]
    parts = _checked(splits, index, own, len(label))
    return _knn(x, y, parts, own, KS, (False, True), 0.07, {"splits": len(parts), "seed": seed}, [])


def _knn(
    x: Tensor,
    y: Tensor,
    parts: Sequence[tuple[Tensor, Tensor]],
    group: Tensor | None,
    ks: Sequence[int],
    scaled: Sequence[bool],
    temperature: float,
    common: dict[str, Any],
    notes: list[str],
) -> Result:
    answers, chosen, caution, seed = [], [], [], common["seed"]
    for train, test in parts:
        scores, config, said = knn_chosen(
            x[train],
            y[train],
            x[test],
            group=None if group is None else group[train],
            ks=ks,
            scaled=scaled,
            temperature=temperature,
            seed=seed,
        )
        answers.append(scores.argmax(1))
        chosen.append(config)
        caution += [note for note in said if note not in caution]
    config = {
        "chosen": _counts([f"k {one['k']}, {_WAYS[one['standardized']]}" for one in chosen]),
        "temperature": temperature,
        "similarity": "cosine",
        "train": sum(len(train) for train, _ in parts) // len(parts),
        "choices": chosen,
        **common,
    }
    tested = torch.cat([test for _, test in parts])
    made = summary("knn", torch.cat(answers), y, group, tested, config, notes + caution, seed)
    if tried := sum(one["held_out"] for one in chosen):
        hits = sum(max(one["held_out_accuracy"]) * one["held_out"] for one in chosen) / 100
        # Each row is held out in most of the splits: it counts once for the interval.
        count = max(1, tried // len(parts))
        low, high = wilson(min(count, round(hits * count / tried)), count)
        made["held_out"] = {"accuracy": 100 * hits / tried, "low": low, "high": high, "samples": count}
    return made


def evaluate_linear(
    feature: Tensor,
    label: Tensor,
    splits: Sequence[tuple[Tensor, Tensor]],
    *,
    group: Tensor | None = None,
    solver: Solver = logistic,
    strengths: Sequence[float] = STRENGTHS,
    seed: int,
) -> Result:
    """What `evaluate` gives as "linear", alone."""
    x, y, index = labeled(feature, label, "given")
    own = None if group is None else group.to(x.device)[index]
    parts = _checked(splits, index, own, len(label))
    common = {"splits": len(parts), "seed": seed}
    return _linear(x, y, parts, own, solver, strengths, (False, True), common, [])


def _linear(
    x: Tensor,
    y: Tensor,
    parts: Sequence[tuple[Tensor, Tensor]],
    group: Tensor | None,
    solver: Solver,
    strengths: Sequence[float],
    scaled: Sequence[bool],
    common: dict[str, Any],
    notes: list[str],
) -> Result:
    answers, chosen, caution, seed = [], [], [], common["seed"]
    scales: list[Scale] = ["each" if one else "one" for one in scaled]
    for train, test in parts:
        inner = None if group is None else group[train]
        scores, config, said = linear_scores(
            x[train], y[train], x[test], group=inner, solver=solver, strengths=strengths, scales=scales, seed=seed
        )
        answers.append(scores.argmax(1))
        chosen.append(config)
        caution += [note for note in said if note not in caution]
    config = {
        "solver": solver.__name__,
        "chosen": _counts([f"strength {one['strength']:g}, {_WAYS[one['scale'] == 'each']}" for one in chosen]),
        "choices": chosen,
        **common,
    }
    tested = torch.cat([test for _, test in parts])
    return summary("linear", torch.cat(answers), y, group, tested, config, notes + caution, seed)


def _counts(texts: list[str]) -> dict[str, int]:
    """How often each occurs."""
    return dict(Counter(texts))


def summary(
    name: str,
    answer: Tensor,
    label: Tensor,
    group: Tensor | None,
    tested: Tensor,
    config: dict[str, object],
    notes: list[str],
    seed: int,
) -> Result:
    """What the numbers and pairs of `evaluate` are, for the answers to the rows `tested`."""
    truth = label[tested]
    hit = answer == truth
    mean, low, high = of_answers(hit, group=None if group is None else group[tested], seed=seed)
    each = per_class(hit, truth)
    numbers = {
        "accuracy": mean,
        "low": low,
        "high": high,
        "class_accuracy": sum(each.values()) / len(each),
        "chance": 100 * float(torch.bincount(truth).max()) / len(truth),
        "right": packed(hit),
        "per_class": each,
        "confusion": _confusion(truth, answer),
    }
    over = "test samples" if group is None else "groups"
    return result(name, numbers, {**config, "test": len(truth), "interval_over": over}, list(notes))


def _confusion(truth: Tensor, answer: Tensor) -> list[list[int]]:
    # Listed, not laid out as a matrix: of a thousand classes nearly all pairs are never confused.
    pairs, count = torch.stack([truth, answer], 1).unique(dim=0, return_counts=True)
    return torch.cat([pairs, count[:, None]], 1).tolist()


def _checked(
    splits: Sequence[tuple[Tensor, Tensor]], index: Tensor, group: Tensor | None, rows: int
) -> list[tuple[Tensor, Tensor]]:
    """The splits as positions among the labeled rows, and honest ones."""
    place = torch.full((rows,), -1, dtype=torch.int64, device=index.device)
    place[index] = torch.arange(len(index), device=index.device)
    parts = []
    seen = torch.zeros(len(index), dtype=torch.int64, device=index.device)
    for number, split in enumerate(splits):
        train, test = (place[p.to(index.device)] for p in split)
        train, test = train[train >= 0], test[test >= 0]
        if not len(train) or not len(test):
            raise UserError(
                f"split {number} has {len(train)} labeled training and {len(test)} test samples; wanted both"
            )
        if torch.isin(test, train).any():
            raise UserError(f"split {number} trains on {int(torch.isin(test, train).sum())} of its test samples")
        if group is not None:
            known = group[test][group[test] != MISSING]
            both = known[torch.isin(known, group[train])].unique()
            if len(both):
                raise UserError(f"split {number} has {len(both)} groups in both parts; keep every group on one side")
        seen += torch.bincount(test, minlength=len(index))
        parts.append((train, test))
    if not parts:
        raise UserError("no split was given; wanted at least one pair (train, test)")
    if seen.max() > 1:
        raise UserError(f"{int((seen > 1).sum())} samples are tested more than once; wanted disjoint test parts")
    return parts
