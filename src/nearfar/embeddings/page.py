"""Pages of what was found among embeddings, with a picture of each sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from nearfar.batch import MISSING
from nearfar.data.digests import digests
from nearfar.data.tiles import Tiles
from nearfar.embeddings.search import Found, Queries
from nearfar.embeddings.shards import Embeddings
from nearfar.errors import UserError, counted
from nearfar.report.gallery import Gallery, Group, Tile
from nearfar.report.html import write
from nearfar.run import Run

SIDE = 96
MOST = 100
"""Queries, groups or samples that a page shows, at most."""


@dataclass(frozen=True)
class Section:
    """A part of the page. form: how the face of the tiles draws it: "neighbors", "copies" or "outliers"."""

    title: str
    lead: str
    form: str
    gallery: Gallery


@dataclass(frozen=True)
class Page:
    title: str
    facts: list[str]
    sections: list[Section]


def save(path: Path, title: str, facts: Sequence[str], sections: Sequence[Section]) -> Path:
    """Write a page, whole or not at all."""
    return write(path, "found.html", Page(title, list(facts), list(sections)), {"curves": [], "map": None})


def pictures(held: Embeddings, run: Run, rows: Sequence[int], data: str = "") -> dict[int, dict[str, Any]]:
    """What pages show of some rows of the embeddings, by row; and under -1 what is said once for all tiles.

    data: where the samples are now.  Only the files that are wanted are read, where samples are files.
    Raises ValueError where some are there no more.
    """
    rows = sorted(set(rows))
    tiles, place = tiles_of(held, run, rows, held.data(data))
    made = tiles.each(torch.tensor([place[row] for row in rows], dtype=torch.int64), SIDE)
    known = {row: made[place[row]] | {"name": held.names[row], "label": held.rows["label"][row]} for row in rows}
    return {-1: tiles.head(), **known}


def tiles_of(held: Embeddings, run: Run, rows: list[int], data: str) -> tuple[Tiles, dict[int, int]]:
    """The tiles of samples, and which of them each row is, known by its digest."""
    root = run.kind.root(data)
    files = [] if root is None else [str(root / held.names[row]) for row in rows]
    wanted = {row: held.rows["digest"][row] for row in rows}
    if files and all(run.kind.is_sample(file) and Path(file).is_file() for file in files):
        samples = run.kind.open_files(list(dict.fromkeys(files)), run)
    else:
        samples = run.open(data, labels="none", lenient=True)
    where = {one: i for i, one in enumerate(digests(samples))}
    if lost := [row for row, one in wanted.items() if one not in where]:
        raise UserError(
            f"{counted(len(lost), 'samples')} of {data!r} are not what was embedded, such as "
            f"{held.names[lost[0]]!r}: put them back, or name the data by --data"
        )
    return run.kind.tiles(samples), {row: where[one] for row, one in wanted.items()}


def tile(content: Mapping[str, Any], similarity: float | None, agreement: str = "") -> Tile:
    return Tile(content["name"], content["label"], content, similarity, agreement)


def gallery(head: Mapping[str, Any], groups: list[Group]) -> Gallery:
    return Gallery(head["face"], head["noun"], head["plural"], head, groups, {}, [])


def results(held: Embeddings, run: Run, queries: Queries, found: Found, data: str = "") -> list[Section]:
    """What queries found: each query beside it, where it looks as what it found does; else above, in words."""
    count = min(len(queries.names), MOST)
    index, cosine = found.index[:count].tolist(), found.cosine[:count].tolist()
    seen = pictures(held, run, [i for row in index for i in row] + (queries.own or [])[:count], data)
    rows = [
        [tile(seen[i], s) for i, s in zip(some, scores, strict=True)]
        for some, scores in zip(index, cosine, strict=True)
    ]
    own = _own_tiles(queries, seen, count)
    lead = "The most similar first. The number is the cosine similarity: 1 is the same direction, 0 unrelated."
    if own:
        groups = [Group([tile(first, None), *row], 1 + len(row)) for first, row in zip(own, rows, strict=True)]
        return [
            Section("Found", f"The first of each group is the query. {lead}", "neighbors", gallery(seen[-1], groups))
        ]
    said = [queries.tiles.face.words(i) if queries.tiles else "" for i in range(count)]
    return [
        Section(words or name, lead, "outliers", gallery(seen[-1], [Group(row, len(row))]))
        for words, name, row in zip(said, queries.names, rows, strict=False)
    ]


def _own_tiles(queries: Queries, seen: Mapping[int, dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The tiles of the queries; none where they look otherwise than the gallery."""
    if queries.own is not None:
        return [seen[row] for row in queries.own[:count]]
    tiles = queries.tiles
    if tiles is None or tiles.head() != seen[-1]:
        return []
    unlabeled = replace(tiles, label=torch.full((len(tiles.names),), MISSING))
    made = unlabeled.each(torch.arange(count), SIDE)
    return [made[i] for i in range(count)]
