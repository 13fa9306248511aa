"""Suspected label errors of the data of a run, each with a picture and a number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nearfar.batch import MISSING
from nearfar.data.samples import Samples
from nearfar.embeddings.page import SIDE, Section, gallery, tile
from nearfar.errors import UserError
from nearfar.evaluation.suspects import Suspects, suspects
from nearfar.ranges import Seed, checked
from nearfar.report.gallery import Group
from nearfar.run import Run

HEADER = ("path", "label", "proposed", "margin")


@dataclass(frozen=True)
class Suspected:
    """Labels of some samples that are probably wrong."""

    samples: Samples
    found: Suspects

    def rows(self) -> list[list[str]]:
        """A row for each, the surest first, under HEADER."""
        names, classes = self.samples.names, self.samples.classes
        return [
            [names[i], classes[given], classes[proposed], f"{margin:.3f}"]
            for i, given, proposed, margin in zip(
                self.found.index.tolist(),
                self.found.given.tolist(),
                self.found.proposed.tolist(),
                self.found.margin.tolist(),
                strict=True,
            )
        ]

    def section(self, run: Run, most: int) -> Section | None:
        """The surest of them as pictures; None where there are none."""
        index = self.found.index[:most]
        if not len(index):
            return None
        tiles = run.kind.tiles(self.samples)
        made = tiles.each(index, SIDE)
        shown = [
            tile(made[i] | {"label": f"{given} → {proposed}"}, float(margin))
            for i, (_, given, proposed, margin) in zip(index.tolist(), self.rows(), strict=False)
        ]
        lead = (
            "Given label → what neighbors and a linear classifier say, neither of which learned from that label. The "
            "number is by how much they hold it likelier, 0 to 1."
        )
        return Section("Suspected labels", lead, "outliers", gallery(tiles.head(), [Group(shown, len(shown))]))


@checked
def find(
    run: Run,
    data: Any,
    *,
    labels: Any = None,
    label_column: str = "",
    keep_words: tuple[str, ...] = (),
    seed: Seed = 0,
    say: Callable[[str], None] = lambda text: None,
) -> Suspected:
    """The labels of `data` that are probably wrong: see `nearfar.evaluation.suspects`.

    Raises ValueError where no labels are known, or too few to learn from some and judge others.
    """
    run.insist_there(data, labels, label_column, f"suspects are among labels, and none are known: {run.kind.unlabeled}")
    samples = run.open(data, labels=labels, label_column=label_column, keep_words=keep_words)
    for note in samples.notes:
        say(note)
    if not bool((samples.label != MISSING).any()):
        raise UserError(f"suspects are among labels, and none are known: {run.kind.unlabeled}")
    group = samples.group if bool((samples.group != MISSING).any()) else None
    return Suspected(samples, suspects(run.rows(samples), samples.label, group=group, seed=seed))
