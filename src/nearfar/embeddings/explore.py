"""One page to explore embeddings: all points in two dimensions, with search, selection and pictures.

Places are by principal components, which are linear: distances seen are a part of the true ones, and how large a part
is said. t-SNE (van der Maaten and Hinton 2008), scikit-learn's, is for up to `TSNE_MOST` rows, as its time grows
beyond that; UMAP would take a package of its own.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from nearfar.data.samples import drawn
from nearfar.embeddings.page import tiles_of
from nearfar.embeddings.shards import Embeddings
from nearfar.errors import UserError, counted
from nearfar.report.html import write
from nearfar.report.samples import tsne_place
from nearfar.run import Run

Projection = Literal["pca", "tsne"]
MOST = 200_000
"""Points that a page shows; of more rows, as many are drawn."""
TSNE_MOST = 5_000
"""Rows of which t-SNE is made, at most: of these it takes about half a minute."""
PICTURES = 3_000
"""Samples with a picture, by default; some 1.5 kB each."""
SIDE = 48
"""Pixels of a side of a picture."""
NOT_COLORS = ("index", "name", "digest", "vector")
"""The columns of shards that points are not colored by."""


@dataclass(frozen=True)
class Places:
    """Where points lie.  xy: N x 2, in [-1, 1].  how: in a sentence."""

    xy: Tensor
    how: str


@dataclass(frozen=True, kw_only=True)
class ExplorePage:
    title: str
    facts: list[str]
    count: int
    noun: str
    pictures: int


def by_components(held: Embeddings, rows: Tensor) -> Places:
    """By the first two principal components of the unit vectors of all rows, shard by shard.

    Memory holds a shard and D x D numbers. Signs are so that the larger part of each component is positive.
    """
    count, mean = 0, torch.zeros(held.width, dtype=torch.float64)
    second = torch.zeros(held.width, held.width, dtype=torch.float64)
    for block in held.blocks():
        block = block.double()
        count += len(block)
        mean += block.sum(0)
        second += block.T @ block
    mean /= count
    values, vectors = torch.linalg.eigh(second / count - torch.outer(mean, mean))
    axes = vectors[:, -2:].flip(1)  # D x 2, the largest first
    axes = axes * torch.where(axes.gather(0, axes.abs().argmax(0, keepdim=True)) < 0, -1.0, 1.0)
    total = float(values.clamp(min=0).sum())
    share = float(values[-2:].clamp(min=0).sum()) / total if total > 1e-12 else 0.0
    xy = torch.cat([(block.double() - mean) @ axes for block in held.blocks()])[rows]
    if xy.shape[1] < 2:
        xy = torch.cat([xy, torch.zeros(len(xy), 1, dtype=xy.dtype)], 1)
    return Places(_fitted(xy.float()), f"Two principal components, which hold {100 * share:.0f} % of the variance")


def by_tsne(held: Embeddings, rows: Tensor, seed: int) -> Places:
    """By t-SNE. Raises UserError for more rows than it is made of."""
    if len(rows) > TSNE_MOST:
        raise UserError(
            f"--projection tsne is of {TSNE_MOST:,} rows at most, and these are {len(rows):,}: give --points "
            f"{TSNE_MOST}, which draws as many, or --projection pca"
        )
    unit = torch.cat(list(held.blocks()))[rows]
    xy, placed, perplexity = tsne_place(unit, seed)
    how = f"t-SNE of perplexity {perplexity:g}: who is near whom is true, how far others are is not"
    return Places(_fitted(xy), how if placed == "t-SNE" else "All rows are the same, or too few to be placed")


def _fitted(xy: Tensor) -> Tensor:
    """Centered, in [-1, 1], with one scale for both axes."""
    xy = xy - (xy.amax(0) + xy.amin(0)) / 2
    return xy / xy.abs().max().clamp(min=1e-12)


def columns(held: Embeddings, rows: Tensor) -> dict[str, dict[str, Any]]:
    """What points can be colored by: of each column of the shards that holds two values or more, its values in order,
    and of each point which it has, -1 where it is unknown, packed as in `_packed`."""
    found = {}
    for name, every in held.columns(NOT_COLORS).items():
        values = [None if every[i] in (None, "") else str(every[i]) for i in rows.tolist()]
        known = sorted({value for value in values if value is not None}, key=_natural)
        if len(known) > 1 or (name == "label" and known):
            place = {value: i for i, value in enumerate(known)}
            codes = np.array([-1 if value is None else place[value] for value in values], np.int32)
            found[name] = {"values": known, "codes": _packed(codes)}
    return found


def _natural(text: str) -> tuple[bool, float, str]:
    return (True, float(text), text) if text.removeprefix("-").isdecimal() else (False, 0.0, text)


def _packed(numbers: np.ndarray) -> str:
    """The bytes of an array, the least of each number first, in base 64."""
    return base64.b64encode(np.ascontiguousarray(numbers.astype(numbers.dtype.newbyteorder("<"))).tobytes()).decode()


def pictures(held: Embeddings, run: Run, rows: Sequence[int], data: str = "") -> dict[str, Any]:
    """Pictures of some rows, of a kind that is looked at: {"rows", "sprite", "across"}.

    Raises UserError where samples are not looked at, or are there no more.
    """
    tiles, place = tiles_of(held, run, sorted(rows), held.data(data))
    if tiles.face.name != "thumbnails":
        raise UserError(f"{held.index['noun']} have no pictures of so small a size")
    where = sorted(rows)
    made = tiles.face.every(torch.tensor([place[row] for row in where]), SIDE)
    return {"rows": where, "sprite": made["sprite"], "across": made["across"]}


def save(
    path: Path,
    held: Embeddings,
    *,
    title: str,
    projection: Projection = "pca",
    points: int = MOST,
    shown: dict[str, Any] | None = None,
    seed: int = 0,
) -> str:
    """Write the page, and give a sentence on how points are placed.  shown: what `pictures` gave, if anything."""
    rows = drawn(len(held), points, seed)
    places = by_components(held, rows) if projection == "pca" else by_tsne(held, rows, seed)
    known = [held.names[i] for i in rows.tolist()]
    there = {row: i for i, row in enumerate(rows.tolist())}
    part = f"{len(rows):,} of {counted(len(held), held.index['noun'])}, drawn at random" if len(rows) < len(held) else (
        counted(len(held), held.index["noun"])
    )  # fmt: skip
    content = {
        "xy": _packed(((places.xy.numpy() + 1) / 2 * 65535).round().astype(np.uint16)),
        "row": _packed(rows.numpy().astype(np.int32)),
        "name": known,
        "columns": columns(held, rows),
        "pictures": None if shown is None else shown | {
            "of": _packed(np.array([there.get(row, -1) for row in shown["rows"]], np.int32)), "rows": None
        },
    }  # fmt: skip
    few = 0 if shown is None else len(shown["rows"])
    facts = [f"{part}. {places.how}."]
    if few:
        facts.append(f"{few:,} have a picture.")
    page = ExplorePage(title=title, facts=facts, count=len(rows), noun=held.index["noun"], pictures=few)
    write(path, "explore.html", page, content, script="explore.js")
    return places.how
