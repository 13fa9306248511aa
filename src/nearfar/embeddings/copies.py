"""Near-duplicates of a directory of embeddings, as tables, sentences and pages tell of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from nearfar.batch import MISSING
from nearfar.data.cells import joined_groups
from nearfar.data.samples import LEARNED
from nearfar.embeddings.duplicates import Duplicates, near_duplicates
from nearfar.embeddings.page import Section, gallery, pictures, tile
from nearfar.embeddings.shards import Embeddings
from nearfar.errors import counted
from nearfar.report.gallery import Group
from nearfar.run import Run

PARTS = ("train", "val", "test")
TILES = 8
"""Samples of a group that a page shows."""


@dataclass(frozen=True)
class Copies:
    """held: where they are.  found: which rows are near-duplicates of which."""

    held: Embeddings
    found: Duplicates
    threshold: float

    def split(self, i: int) -> str:
        """The split of a row; what has none is learned from."""
        own = self.held.rows["split"][i]
        return "train" if own in LEARNED else own

    def leaking(self) -> list[tuple[int, int, float]]:
        """Rows with the most similar one of each earlier split, train before val before test; the most similar
        first."""
        other, cosine = self.found.across, self.found.across_cosine
        made = [
            (i, int(other[i, p]), float(cosine[i, p]))
            for i, p in (other != MISSING).nonzero().tolist()
            if PARTS.index(self.split(i)) > p
        ]
        return sorted(made, key=lambda pair: (-pair[2], pair[0]))

    def leaks(self) -> Iterator[str]:
        """A sentence for each two splits that share near-duplicates; one if none do; none if all is one split."""
        sizes = Counter(map(self.split, range(len(self.held))))
        if len(sizes) < 2:
            return
        count = Counter((self.split(i), self.split(j)) for i, j, _ in self.leaking())
        for (one, other), n in sorted(count.items()):
            yield (
                f"Leak: {n:,} of {sizes[one]:,} {self.held.index['noun']} of the split {one} have a near-duplicate in "
                f"{other}."
            )
        if not count:
            yield f"No near-duplicates across the splits {', '.join(p for p in PARTS if p in sizes)}."

    def summary(self) -> str:
        groups, labels = self.groups(), self.held.rows["label"]
        noun = self.held.index["noun"]
        if not groups:
            return f"None of {counted(len(self.held), noun)} has a near-duplicate, at a cosine of {self.threshold:g}."
        differ = sum(len({labels[i] for i in rows if labels[i] is not None}) > 1 for rows in groups)
        said = f"; in {differ:,} of them the labels differ" if differ else ""
        return (
            f"{sum(map(len, groups)):,} of {counted(len(self.held), noun)} are near-duplicates, at a cosine of "
            f"{self.threshold:g}, in {counted(len(groups), 'groups')}{said}."
        )

    def groups(self) -> list[list[int]]:
        """The rows of each group, the largest first."""
        return self._groups

    @cached_property
    def _groups(self) -> list[list[int]]:
        rows_of: dict[int, list[int]] = {}
        for i in (self.found.group != MISSING).nonzero()[:, 0].tolist():
            rows_of.setdefault(int(self.found.group[i]), []).append(i)
        return sorted(rows_of.values(), key=lambda rows: (-len(rows), rows[0]))

    def least(self, rows: list[int]) -> float:
        """The lowest cosine of a row with its most similar near-duplicate."""
        return float(self.found.cosine[rows].min())

    def table(self) -> list[list[str]]:
        """What --labels takes: path or index, label, split and group, of all rows; and the most similar of each."""
        names, known = self.held.names, self.held.rows
        given = [f"group-{g}" if g is not None else "" for g in known["group"]]
        groups = joined_groups(self.held.group, self.found.group, given)
        key = "index" if names == [str(i) for i in range(len(names))] else "path"
        rows = [
            [
                names[i],
                known["label"][i] or "",
                known["split"][i],
                groups[i],
                names[j] if j != MISSING else "",
                f"{cosine:.4f}" if j != MISSING else "",
            ]
            for i, (j, cosine) in enumerate(zip(self.found.nearest.tolist(), self.found.cosine.tolist(), strict=True))
        ]
        return [[key, "label", "split", "group", "nearest", "similarity"], *rows]

    def sections(self, run: Run, data: str, most: int) -> list[Section]:
        """The leaks, then the groups, as pictures."""
        leaks = [([j, i], s) for i, j, s in self.leaking()[:most]]
        groups = [(rows[:TILES], None) for rows in self.groups()[:most]]
        shown = {i for rows, _ in [*leaks, *groups] for i in rows}
        if not shown:
            return []
        seen = pictures(self.held, run, sorted(shown), data)
        labels = self.held.rows["label"]
        sizes = [2] * len(leaks) + [len(rows) for rows in self.groups()[:most]]
        made: list[Group] = []
        for (rows, _), size in zip([*leaks, *groups], sizes, strict=True):
            known = {labels[i] for i in rows if labels[i] is not None}
            first, *others = rows
            cosine = (self.held.unit[others] @ self.held.unit[first]).tolist()
            tiles = [tile(seen[first], None), *(tile(seen[i], s) for i, s in zip(others, cosine, strict=True))]
            made.append(Group(tiles, size, len(known) > 1))
        parts: list[tuple[str, str, Any]] = [
            ("Across splits", "What is tested, or chooses, and is learned from too: the second is of the later split.",
             made[: len(leaks)]),
            ("Groups", "Samples that near-duplicates connect, the largest group first.", made[len(leaks) :]),
        ]  # fmt: skip
        return [Section(title, lead, "copies", gallery(seen[-1], groups)) for title, lead, groups in parts if groups]


def copies(held: Embeddings, threshold: float) -> Copies:
    """The near-duplicates of all rows, and those across splits."""
    splits = ["train" if split in LEARNED else split for split in held.rows["split"]]
    part = torch.tensor([PARTS.index(split) for split in splits])
    return Copies(held, near_duplicates(held.unit, threshold, part), threshold)
