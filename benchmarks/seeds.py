"""What a few seeds are usually worth: the spread of accuracies over seeds in `benchmarks/results`.

    python -m benchmarks.seeds

Fits the prior of a moderated t (Smyth, 2004) by the moments of the log variances of all series of three seeds or more:
the two numbers behind `USUAL_SPREAD` and `USUAL_FREEDOM` in `nearfar.evaluation.intervals`.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import stdev
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

RESULTS = Path(__file__).parent / "results"
ACCURACIES = {"value", "knn_trained", "knn_untrained", "untrained", "accuracy", "knn", "all", "clean", "linear"}
"""Keys of results that hold an accuracy in per cent."""


def series() -> list[list[float]]:
    """Accuracies that differ by their seed alone, in per cent; those that do not differ say nothing."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for path in sorted(RESULTS.glob("*/*-seed*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        # Who is held out, such as speakers, makes more of a difference than the seed.
        alike = re.sub(r"-seed\d+\.json$", "", str(path)) + str(result.get("held_out", ""))
        for name, value in _accuracies(result):
            found[alike, name].append(value)
    return [values for values in found.values() if len(values) > 2 and stdev(values) > 0]


def _accuracies(tree: dict[str, Any], above: str = "") -> Iterator[tuple[str, float]]:
    for key, value in tree.items():
        if isinstance(value, dict) and key != "protocol":
            yield from _accuracies(value, f"{above}{key}.")
        elif key in ACCURACIES and isinstance(value, int | float) and 0 <= value <= 100:
            yield above + key, float(value)


def usual(found: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The usual deviation over seeds, and the degrees of freedom that it is worth: infinite where all have the same."""
    logs = np.log([stdev(values) ** 2 for values in found])
    half = np.array([(len(values) - 1) / 2 for values in found])
    shifted = logs - digamma(half) + np.log(half)
    beyond = shifted.var(ddof=1) - polygamma(1, half).mean()  # of the variances themselves, beyond chance
    if beyond <= 0:
        return math.exp(shifted.mean() / 2), math.inf
    own = float(brentq(lambda h: polygamma(1, h) - beyond, 1e-3, 1e6))  # pyright: ignore[reportArgumentType]
    return math.exp((shifted.mean() + digamma(own) - math.log(own)) / 2), 2 * own


if __name__ == "__main__":
    every = series()
    spread, freedom = usual(every)
    print(f"{len(every)} series: a deviation of {spread:.2f} points, worth {freedom:.1f} degrees of freedom")
