"""Which class is predicted as which: a heat map, and the pairs that are most often confused."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from nearfar.report.record import Record

MOST = 24
"""Classes of a heat map: more are too small to read."""
PAIRS = 8


@dataclass(frozen=True)
class Count:
    """How many samples of a true class, of `total`, were predicted as a class."""

    truth: str
    predicted: str
    right: bool
    n: int
    total: int

    @property
    def share(self) -> float:
        return self.n / self.total

    @property
    def percent(self) -> int:
        return round(100 * self.share)

    @property
    def shade(self) -> float:
        """How deep its color is, 0 to 1. The root makes the few mistakes visible: most are a small share of a class."""
        return round(0.12 + 0.88 * self.share**0.5, 3) if self.n else 0.0


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix. by: what predicted the classes, or "".  rows: the true classes, with a count for each
    predicted one, in the same order.  classes: how many there are, shown or not.  pairs: the most frequent mistakes."""

    title: str
    by: str
    rows: list[list[Count]]
    classes: int
    pairs: list[Count]


def confusions(record: Record) -> list[Confusion]:
    """One for each result that counted them."""
    return [
        confusion(table["title"], counted) for table in record.tables.values() if (counted := table.get("confusion"))
    ]


def confusion(title: str, counted: dict[str, Any]) -> Confusion:
    """counted: as in results/NAME.json (see `nearfar.report.record`). Of many classes, those with the most mistakes."""
    names, counts = counted["classes"], {(truth, answer): n for truth, answer, n in counted["counts"]}
    total: Counter[int] = Counter()
    mistakes: Counter[int] = Counter()
    for (truth, answer), n in counts.items():
        total[truth] += n
        if truth != answer:
            mistakes.update({truth: n, answer: n})
    present = sorted({c for pair in counts for c in pair})
    shown = sorted(sorted(present, key=lambda c: (-mistakes[c], c))[:MOST])
    wrong = sorted(
        ((truth, answer) for truth, answer in counts if truth != answer),
        key=lambda pair: (-counts[pair], -counts[pair] / total[pair[0]], pair),
    )

    def count(truth: int, answer: int) -> Count:
        # A class that is only ever predicted has no samples: its row is empty.
        return Count(names[truth], names[answer], truth == answer, counts.get((truth, answer), 0), max(1, total[truth]))

    return Confusion(
        title=title,
        by=str(counted.get("by") or ""),
        rows=[[count(truth, answer) for answer in shown] for truth in shown],
        classes=len(present),
        pairs=[count(*pair) for pair in wrong[:PAIRS]],
    )
