"""What a page shows of samples: nearest neighbors, copies and outliers, as groups of tiles. How a tile is drawn is the
matter of its face (`nearfar.data.tiles`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nearfar.report.numbers import protocol
from nearfar.report.record import Record


@dataclass(frozen=True)
class Tile:
    """A sample in a group.

    content: what its face draws.  similarity: to the query, or to its neighbors.  agreement: whether its label is that
    of the first of the group: "same", "other", or "" where that is not asked or not known.  remark: a few words on it.
    """

    name: str
    label: str | None
    content: Mapping[str, Any]
    similarity: float | None = None
    agreement: str = ""
    remark: str = ""


@dataclass(frozen=True)
class Group:
    """Tiles that belong together, the query or the first copy first. size: how many there are, shown or not.
    heading: what they have in common, or ""."""

    tiles: list[Tile]
    size: int
    labels_differ: bool = False
    heading: str = ""

    @property
    def similarities(self) -> list[float]:
        """To the first of the group: the lowest and the highest, the only one, or none."""
        known = [tile.similarity for tile in self.tiles[1:] if tile.similarity is not None]
        return [min(known), max(known)] if len(known) > 1 else known


@dataclass(frozen=True)
class Gallery:
    """A part of the page. head: the stored result, from which the face takes what is said once for all tiles.
    facts: numbers on the whole."""

    face: str
    noun: str
    plural: str
    head: Mapping[str, Any]
    groups: list[Group]
    facts: Mapping[str, Any]
    protocol: list[tuple[str, str]]


def neighbors(record: Record) -> Gallery | None:
    """A group for each query: it, and what is nearest to it by cosine."""
    return None if record.neighbors is None else neighbor_gallery(record.neighbors)


def found(record: Record) -> list[tuple[str, Gallery]]:
    """For each direction, "image to text", a group for each query: it, and what it finds on the other side."""
    return [(grid["name"], neighbor_gallery(grid)) for grid in record.found]


def neighbor_gallery(grid: Mapping[str, Any]) -> Gallery:
    """A group for each query of a grid, as `nearfar.report.samples.neighbor_grid` gives it."""
    groups = [
        Group(
            [_tile(query), *(_tile(near, query) for near in query["neighbors"])],
            1 + len(query["neighbors"]),
            heading=str(query.get("heading", "")),
        )
        for query in grid["queries"]
    ]
    return _gallery(grid, groups, {})


def copies(record: Record) -> Gallery | None:
    """A group for each set of copies."""
    if (result := record.copies) is None:
        return None
    groups = []
    for one in result["sets"]:
        first, *others = one["samples"]
        tiles = [_tile(first), *(_tile(tile, first if one["labels_differ"] else None) for tile in others)]
        groups.append(Group(tiles, one["size"], one["labels_differ"]))
    return _gallery(result, groups, result["count"] | {"meaning": result["meaning"]})


def outliers(record: Record) -> Gallery | None:
    """One group: the samples that are like few others, the farthest first."""
    if (result := record.outliers) is None:
        return None
    tiles = [_tile(tile) for tile in result["samples"]]
    groups = [Group(tiles, len(tiles))] if tiles else []
    return _gallery(result, groups, {"median": result["median"], "total": result["total"]})


def _gallery(result: Mapping[str, Any], groups: list[Group], facts: Mapping[str, Any]) -> Gallery:
    return Gallery(result["face"], result["noun"], result["plural"], result, groups, facts, protocol(result))


def _tile(tile: Mapping[str, Any], first: Mapping[str, Any] | None = None) -> Tile:
    agreement = ""
    if first is not None and None not in (tile["label"], first["label"]):
        agreement = "same" if tile["label"] == first["label"] else "other"
    return Tile(tile["name"], tile["label"], tile, tile["similarity"], agreement, str(tile.get("remark", "")))
