"""Which checkpoint of a run to take where no labels are known, by the scores that were measured while it trained.

Which scores are gone by, and how far they can be trusted, is in `choice.json`, which `python -m benchmarks.checkpoints`
writes from its results:

    {"measured": true, "scores": ["lidar"], "runs": 36, "checkpoints": 8, "data": ["cifar10", ...],
     "accuracy": "linear probe", "spearman": {"mean": ..., "low": ..., "high": ...},
     "picks": {"cifar10": "lidar", ...}, "gain": {"mean": ..., ...}, "regret": ..., "regret_last": ...}

scores: of several the mean rank is gone by; none where no score was seen to choose better than the last checkpoint.
spearman: of the score and the accuracy, over the checkpoints of a run, where a score is gone by.  picks: for each data
set, the score that had done best on the others; "last" or "loss" where none had done better than the last checkpoint or
the training loss.  gain: points of accuracy over the last checkpoint by these.  regret: points below the best
checkpoint by labels.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from nearfar.evaluation.scores import PREFIX, SCORES, together, worth

CLID = "CLID"


class Choice(NamedTuple):
    """epoch: of the checkpoint that the scores find best.  names: what is gone by, for readers."""

    epoch: int
    names: list[str]


@cache
def validated() -> dict[str, Any]:
    """What `choice.json` holds."""
    return json.loads(Path(__file__).with_name("choice.json").read_text(encoding="utf-8"))


def is_scored(line: Mapping[str, Any]) -> bool:
    """Whether a line of a journal holds scores of a trained checkpoint."""
    return line["step"] > 0 and "epoch" in line and any(name.startswith(PREFIX) for name in line)


def scored(metrics: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, float]]:
    """The scores that a journal holds of trained checkpoints, by epoch."""
    return {
        round(line["epoch"]): {
            name: value for name in SCORES if isinstance(value := line.get(f"{PREFIX}{name}"), int | float)
        }
        for line in metrics
        if is_scored(line)
    }


def choice(metrics: Sequence[Mapping[str, Any]], there: Collection[int]) -> Choice | None:
    """What scores choose among the epochs whose checkpoints are there; of equals the last. None where no score is known
    to choose better than the last checkpoint, or fewer than two checkpoints were measured.
    """
    found = {epoch: numbers for epoch, numbers in scored(metrics).items() if epoch in there}
    worths = worth(list(found.values()))
    names = [name for name in validated()["scores"] if name in worths]
    if len(found) < 2 or len(names) < len(validated()["scores"]) or not names:
        return None
    order = together(worths, names)
    best = max(zip(order, found, strict=True))[1]
    return Choice(best, [CLID if name == "clid" else SCORES[name].title for name in names])


def checkpoints_table(
    metrics: Sequence[Mapping[str, Any]], there: Collection[int], accuracy: Mapping[int, Mapping[str, float]], of: str
) -> dict[str, Any]:
    """The checkpoints of a run with what was measured of each, as a table to print, and which one to take.

    there: the epochs whose checkpoints can be had.  accuracy: by epoch, in per cent, with low and high, of those where
    labels tell it.  of: what it was measured on, in a few words.
    """
    found = {epoch: numbers for epoch, numbers in scored(metrics).items() if epoch in there}
    names = [name for name in SCORES if any(name in numbers for numbers in found.values())]
    taken = choice(metrics, there)
    rows = []
    for epoch in sorted(there):
        values: dict[str, Any] = {"kNN (%)": dict(accuracy[epoch])} if epoch in accuracy else {}
        values |= {
            SCORES[name].title: {"value": found[epoch][name], "places": 3}
            for name in names
            if name in found.get(epoch, {})
        }
        main = epoch == (max(there) if taken is None else taken.epoch)
        rows.append({"name": f"epoch {epoch}", "main": main, "values": values})
    columns = ["kNN (%)"] * bool(accuracy) + [SCORES[name].title for name in names]
    return {"title": f"Checkpoints{of}", "columns": columns, "rows": rows, "note": reason(taken)}


def reason(taken: Choice | None) -> str:
    """Which checkpoint `auto` is, and why, in a sentence or two."""
    if taken is not None:
        find = "find" if len(taken.names) > 1 else "finds"
        return f"--checkpoint auto is epoch {taken.epoch}: {' and '.join(taken.names)} {find} it best."
    if validated()["scores"]:
        return "--checkpoint auto is last: scores of two checkpoints or more are needed to choose, and are not there."
    why = (
        "no score was seen to choose better"
        if validated()["measured"]
        else "how well scores choose is not measured yet"
    )
    return f"--checkpoint auto is last: {why}."
