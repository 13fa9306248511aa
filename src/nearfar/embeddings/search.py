"""What is nearest to a query, by cosine: exact, shard by shard, or by an inverted file of FAISS."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.data.samples import Samples, drawn
from nearfar.data.tiles import Tiles
from nearfar.embeddings.shards import Embeddings
from nearfar.errors import NotFound, NotInstalled, UserError
from nearfar.files import file_digest, read_json, replace, replace_json
from nearfar.run import Run

PART = 256
"""Queries whose similarities with a block of the gallery are held at a time."""
TRIED = 200
"""Rows on which the recall of an approximate search is measured."""


@dataclass(frozen=True)
class Found:
    """The nearest rows of each query, nearest first. cosine: Q x k.  index: Q x k, int64."""

    cosine: Tensor
    index: Tensor


@dataclass(frozen=True)
class Queries:
    """What is looked for. unit: Q x D, of unit length.  names: Q.  own: the row that each is in the gallery, where it
    is one, which is not found.  tiles: what the queries look like, where they are samples."""

    unit: Tensor
    names: list[str]
    own: list[int] | None = None
    tiles: Tiles | None = None


def nearest(query: Tensor, blocks: Iterable[Tensor], k: int) -> Found:
    """The k rows with the largest cosine to each query; of equals the first.

    query: Q x D, of unit length.  blocks: the gallery, n x D each, of unit length, in order.
    """
    best, place, first = query.new_empty(len(query), 0), torch.empty(len(query), 0, dtype=torch.int64), 0
    for block in blocks:
        tops = [(some @ block.T).topk(min(k, len(block)), dim=1) for some in query.split(PART)]
        best = torch.cat([best, torch.cat([top.values for top in tops])], 1)
        place = torch.cat([place, first + torch.cat([top.indices for top in tops])], 1)
        order = best.argsort(dim=1, descending=True, stable=True)[:, :k]
        best, place, first = best.gather(1, order), place.gather(1, order), first + len(block)
    return Found(best, place)


def search(held: Embeddings, queries: Queries, k: int, how: Index | None = None) -> Found:
    """The k rows nearest to each query, but for the query's own row.  how: an approximate search in the place of an
    exact one.

    Raises ValueError where vectors are of another width, or k is more than there are rows.
    """
    if queries.unit.shape[1] != held.width:
        raise UserError(f"queries of {queries.unit.shape[1]} numbers, and embeddings of {held.width}: embed both alike")
    most = len(held) - (queries.own is not None)
    if not 1 <= k <= most:
        raise UserError(f"--k {k}: there are {most:,} rows to find; wanted 1 to {most:,}")
    more = k + (queries.own is not None)
    found = how.search(queries.unit, more) if how else nearest(queries.unit, held.blocks(), more)
    if queries.own is None:
        return found
    return _others(found, torch.tensor(queries.own), k)


def _others(found: Found, own: Tensor, k: int) -> Found:
    """The first k of k + 1 that were found, but for each query's own row, Q.  A query that its copies crowd out stays
    out."""
    order = (found.index != own[:, None]).long().argsort(dim=1, descending=True, stable=True)[:, :k]
    return Found(found.cosine.gather(1, order), found.index.gather(1, order))


class Index:
    """An inverted file (IVF) of FAISS over embeddings, kept beside them: rows in lists by their nearest centroid, of
    which a query looks into the nearest few.

    recall: the share of the k nearest other rows that it finds, on rows of the gallery that are asked for.
    Raises NotInstalled where FAISS is not there.
    """

    def __init__(self, held: Embeddings, *, seed: int = 0) -> None:
        try:
            import faiss  # pyright: ignore[reportMissingImports] (of the extra "fast")
        except ImportError as error:
            raise NotInstalled("--index ivf takes FAISS: pip install 'nearfar[fast]', or search exactly") from error
        self.held, self.seed = held, seed
        file, note = held.path / "ivf.faiss", held.path / "ivf.json"
        lists = max(1, min(len(held) // 39, round(4 * math.sqrt(len(held)))))
        probes = max(1, min(lists, max(8, lists // 32)))
        if not _is_kept(file, note, held.index["key"]):
            quantizer = faiss.IndexFlatIP(held.width)
            index = faiss.IndexIVFFlat(quantizer, held.width, lists, faiss.METRIC_INNER_PRODUCT)
            index.cp.seed = seed
            index.train(held.unit[drawn(len(held), 256 * lists, seed)].numpy())
            for block in held.blocks():
                index.add(block.numpy())
            replace(file, lambda temporary: faiss.write_index(index, str(temporary)))
            replace_json(note, {"key": held.index["key"], "sha256": file_digest(file), "lists": lists})
        self._index: Any = faiss.read_index(str(file))
        self._index.nprobe = probes
        self.lists, self.probes = self._index.nlist, probes

    def search(self, query: Tensor, k: int) -> Found:
        cosine, index = self._index.search(np.ascontiguousarray(query.numpy()), k)
        if (index < 0).any():  # the lists that are looked into hold fewer rows than are asked for
            return nearest(query, self.held.blocks(), k)
        return Found(torch.from_numpy(cosine), torch.from_numpy(index))

    def recall(self, k: int) -> tuple[float, int]:
        """The share of the k nearest other rows, as an exact search finds them, that this finds too; and on how many
        rows. A row itself, which is always found, does not count."""
        rows = drawn(len(self.held), TRIED, self.seed)
        unit, k = self.held.unit[rows], min(k, len(self.held) - 1)
        exact, found = (
            _others(one, rows, k).index for one in (nearest(unit, self.held.blocks(), k + 1), self.search(unit, k + 1))
        )
        hit = (exact[:, :, None] == found[:, None, :]).any(2)
        return float(hit.double().mean()), len(rows)


def _is_kept(file: Path, note: Path, key: str) -> bool:
    """Whether an index of these very embeddings is there, as it was written."""
    try:
        said = read_json(note, "")
        return said["key"] == key and said["sha256"] == file_digest(file)
    except (UserError, OSError, KeyError):
        return False


def asked(held: Embeddings, query: str, run: str = "", *, trust: bool = False, device: str = "auto") -> Queries:
    """What a user looks for, as vectors.

    query: the number of a row; a .npy file of vectors, D or Q x D; a file, folder or table of the kind of the run, or
    of another side of its pairs; or words, where the run or a side of it takes them.
    Raises ValueError for what is none of these.
    """
    if query.isdecimal():
        row = int(query)
        if row >= len(held):
            raise UserError(f"there is no row {row}: rows are 0 to {len(held) - 1:,}")
        unit = _row(held, row)
        return Queries(unit, [held.names[row]], own=[row])
    path = Path(query)
    if path.suffix.lower() == ".npy" and path.is_file() and (rows := _vectors(path, held.width)) is not None:
        return Queries(F.normalize(rows, dim=1), [f"{path.name}[{i}]" for i in range(len(rows))])
    owner = held.run(run, trust=trust).on(device)
    held.insist_same(owner)
    side, samples = _read(held, owner, query)
    if not len(samples):
        raise UserError(f"{query!r} holds nothing that can be read")
    names = samples.names if Path(query).exists() else [query]
    return Queries(F.normalize(side.rows(samples), dim=1), names, tiles=side.kind.tiles(samples))


def _row(held: Embeddings, row: int) -> Tensor:
    """One row of the gallery: 1 x D. It lies in a shard that its number tells."""
    number, place = divmod(row, held.index["shard"])
    block = next(held.blocks(number))
    return block[place : place + 1]


def _vectors(path: Path, width: int) -> Tensor | None:
    """The rows of a NumPy file that holds vectors of that width; None where it holds something else."""
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError) as error:
        raise UserError(f"{str(path)!r} cannot be read: {error}") from error
    if rows.ndim not in (1, 2) or rows.shape[-1] != width or rows.dtype.kind not in "fiu":
        return None
    made = torch.from_numpy(np.array(rows, np.float32)).reshape(-1, width)
    if not bool(made.isfinite().all()):
        raise UserError(f"{str(path)!r} holds numbers that are not finite")
    return made


def _read(held: Embeddings, run: Run, query: str) -> tuple[Run, Samples]:
    """The samples that a query names, and the run opened by the side that they are of."""
    there = Path(query).exists()
    if not there and run.kind.is_sample(query):  # no words, but a file that is misspelled
        raise NotFound(f"there is no file {query!r}")
    if not run.tower:
        given = query if there else run.kind.said(query)
        if given is None:
            remedy = f": embed one side, by --tower {' or '.join(run.sides)}" if run.sides else ""
            raise NotFound(f"there is nothing at {query!r}, and {run.kind.noun} cannot be asked for in words{remedy}")
        return run, run.open_new(given) if there else run.open(given, labels="none", lenient=True)
    names = [run.tower, *(name for name in Run(run.path, run.checkpoint, trust=run.trust).sides if name != run.tower)]
    for name in names:
        side = run if name == run.tower else held.run(str(run.path), trust=run.trust, tower=name)
        side.on(str(run.device), run.batch)
        kind = side.kind
        if there and (kind.is_sample(query) or kind.recognizes(query)):
            return side, side.open_new(query)
        if not there and (given := kind.said(query)) is not None:
            return side, side.open(given, labels="none", lenient=True)
    what = "is of none of its sides" if there else "is no file, and none of its sides takes words"
    raise UserError(f"{query!r} {what}: the sides of {str(run.path)!r} are {', '.join(names)}")


def described(found: Found, held: Embeddings, queries: Queries) -> list[list[str]]:
    """A row for each that was found: query, rank, row, path, label, similarity."""
    names, labels = held.names, held.rows["label"]
    return [
        [query, str(rank), str(i), names[i], labels[i] or "", f"{cosine:.4f}"]
        for query, indices, cosines in zip(queries.names, found.index.tolist(), found.cosine.tolist(), strict=True)
        for rank, (i, cosine) in enumerate(zip(indices, cosines, strict=True), 1)
    ]


HEADER = ["query", "rank", "row", "path", "label", "similarity"]
