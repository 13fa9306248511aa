"""What an evaluation measured, as the table of results/ that a report shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from nearfar.evaluation.intervals import of_answers
from nearfar.evaluation.protocol import unpacked
from nearfar.evaluation.similarity import closeness, cosines, similarity


def results_table(
    evaluations: dict[str, dict[str, Any]],
    classes: list[str],
    seen: int,
    tested: int,
    splits: int,
    how_seen: str,
    group: Tensor | None = None,
) -> dict[str, Any]:
    """The results of several features as the table of a report; the last are the run's own.

    Args:
        how_seen: how the `seen` samples were in training, `Run.seen_how`.
        group: of each tested sample, as in `evaluate`; they are drawn together in the intervals of gains.
    """
    titles = {
        "knn": "kNN (%)",
        "linear": "linear (%)",
        "attentive": "attentive (%)",
        "svm": "SVM (%)",
        "recall_1": "recall@1 (%)",
        "recall_5": "recall@5 (%)",
        "few_labels_1": "1 label a class (%)",
        "few_labels_5": "5 labels (%)",
    }
    main = list(evaluations)[-1]
    rows = [
        {
            "name": name,
            "main": name == main,
            "values": {
                titles[k]: {"value": result["accuracy"], **{key: result[key] for key in ("low", "high", "right")}}
                for k, result in results.items()
            },
            "chosen": {titles[k]: chosen(result) for k, result in results.items()},
        }
        for name, results in evaluations.items()
    ]
    each = {titles[k]: evaluations[main][k]["per_class"] for k in ("knn", "linear")}
    how = "the test split" if splits == 1 else f"{splits} stratified folds"
    chance, held = evaluations[main]["knn"]["chance"], evaluations[main]["knn"].get("held_out")
    note = (
        f"Accuracy on {how} of {tested:,} samples, with 95 % intervals; always naming the most frequent class would "
        f"give {chance:.1f} %."
    )
    if seen:
        note += (
            f" {seen:,} of the {tested:,} tested samples were in pre-training{how_seen}: this says how well the "
            "encoder sorts samples it has seen, not how well it will do on new ones."
        )
    else:
        note += " No tested sample was in pre-training."
    if held:
        note += (
            f" Of {held['samples']:,} training samples, held out in turn as those of the live probe are, neighbors "
            f"name {held['accuracy']:.1f} % right ({held['low']:.1f} to {held['high']:.1f})."
        )
    return {
        "title": "How well labels can be told from the representation",
        "note": note,
        "columns": [titles[k] for k in evaluations[main]],
        "rows": rows,
        "gains": {
            other: {titles[k]: _gain(ours, evaluations[other][k], group) for k, ours in evaluations[main].items()}
            for other in evaluations
            if other != main
        },
        "seen": {"samples": seen, "of": tested},
        "group": None if group is None else group.tolist(),
        "per_class": {
            "columns": list(each),
            "rows": [
                {
                    "name": classes[c],
                    "values": {title: {"value": values[c]} for title, values in each.items() if c in values},
                }
                for c in sorted(next(iter(each.values())))
            ],
        },
        "confusion": {"by": "nearest neighbors", "classes": classes, "counts": evaluations[main]["knn"]["confusion"]},
        "protocol": {
            name: {key: value for key, value in result["protocol"].items() if key not in ("notes", "choices", "chosen")}
            | {"chosen": {row: "; ".join(chosen(results[name])) for row, results in evaluations.items()}}
            for name, result in evaluations[main].items()
        },
    }


def pairs_table(
    rows: Mapping[str, Sequence[Tensor]], score: Tensor, part: Sequence[str], seen: int, seed: int, how_seen: str
) -> dict[str, Any]:
    """Correlations with scores of pairs as the table of a report; the last row is the run's own.

    rows: the two sides of the pairs, N x D each, by the name of what made them.  score, part: N.  seen: pairs of which
    a side was in training, how_seen: in what way, `Run.seen_how`.
    """
    cosine = {name: cosines(sides[0], sides[1]) for name, sides in rows.items()}
    main = list(rows)[-1]
    values = {name: similarity(one, score, part, seed=seed) for name, one in cosine.items()}
    shape = {name: closeness(sides[0], sides[1], score) for name, sides in rows.items()}
    known = [
        f"{name} {', '.join(f'{what} {value:.3f}' for what, value in shape[name].items() if value is not None)}"
        for name in list(rows)[-2:]
    ]
    note = (
        f"Correlation, times 100, of cosines and scores of {len(score):,} pairs, with 95 % intervals over pairs. "
        f"{'; '.join(known).capitalize()} (alignment: mean squared distance of the pairs that score highest, lower is "
        "closer; uniformity: lower is more even)."
    )
    note += (
        f" A sentence of {seen:,} of the pairs was in pre-training{how_seen}."
        if seen
        else " No sentence of them was in pre-training."
    )
    return {
        "title": "How well similarity agrees with people's scores",
        "note": note,
        "columns": list(values[main]),
        "rows": [{"name": name, "main": name == main, "values": own} for name, own in values.items()],
        "gains": {
            other: similarity(cosine[main], score, part, over=cosine[other], seed=seed)
            for other in rows
            if other != main
        },
        "seen": {"samples": seen, "of": len(score)},
        "protocol": {"version": 1, "similarity": "cosine", "pairs": len(score), "seed": seed, "geometry": shape},
    }


def chosen(result: dict[str, Any]) -> list[str]:
    """What one result rests on, as it was chosen on training rows; of several splits, in how many."""
    protocol = result["protocol"]
    if "chosen" not in protocol:
        return ["standardized" if protocol["standardized"] else "as they are"]
    many = len(protocol["chosen"]) > 1
    return [f"{text} ({count} of {protocol['splits']})" if many else text for text, count in protocol["chosen"].items()]


def _gain(ours: dict[str, Any], theirs: dict[str, Any], group: Tensor | None) -> dict[str, float]:
    """What one result gains over another on the same test samples, as a cell of a table."""
    value, low, high = of_answers(unpacked(ours["right"]), over=unpacked(theirs["right"]), group=group)
    return {"value": value, "low": low, "high": high}
