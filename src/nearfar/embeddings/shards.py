"""A directory of embeddings: Parquet shards, and an index.json that says what they are of.

Each shard holds `index`, `name`, `label`, `split`, `group`, `digest` and `vector`, and in its metadata the key of the
index it belongs to, so that shards of two runs or two data sets are never taken for one set. A shard is written aside
and renamed: what is there is whole. Parquet's own checksums find what was damaged afterward.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import MISSING
from nearfar.data.digests import digests, fingerprint
from nearfar.data.samples import Samples
from nearfar.errors import AlreadyThere, Damaged, NotFound, UserError, counted
from nearfar.files import digest, is_leftover, origin, read_json, replace, replace_json
from nearfar.run import Run

Precision = Literal["float16", "float32"]
Say = Callable[[str], None]

INDEX = "index.json"
FORMAT = "nearfar embeddings 1"
_KEY = b"nearfar"
_SHARD = re.compile(r"shard-(\d{5,})\.parquet")


@dataclass(frozen=True)
class Written:
    """What `write` did: shards that it made, and those that were there."""

    made: int
    kept: int


def write(
    run: Run,
    samples: Samples,
    folder: Path,
    *,
    data: Any,
    precision: Precision = "float32",
    shard: int = 50_000,
    opened: dict[str, Any] | None = None,
    force: bool = False,
    say: Say = lambda text: None,
) -> Written:
    """Write the representation of all samples into `folder`, a shard at a time; shards that are there are kept.

    data: whence the samples are.  opened: by what settings other than those of training.
    Of several processes that torchrun started each writes its part of the shards, and none waits for another.
    Raises AlreadyThere where the directory holds anything else, unless `force` is given: other embeddings are replaced.
    """
    rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    index = _index(run, samples, folder, data, precision, shard, opened or {})
    key = index["key"]
    _insist_free(folder, index, force=force)
    folder.mkdir(parents=True, exist_ok=True)
    if rank == 0 and _saved_key(folder) != key:
        replace_json(folder / INDEX, index, indent=1)
    made = kept = 0
    for number, rows in enumerate(torch.arange(len(samples)).split(shard)):
        path = folder / f"shard-{number:05d}.parquet"
        if number % ranks != rank:
            continue
        if path.exists() and _belongs(path, key, len(rows)):
            kept += 1
            continue
        table = _table(run, samples.subset(rows), int(rows[0]), precision, key)
        replace(path, lambda temporary, table=table: _write(table, temporary))
        made += 1
        say(f"Shard {number + 1:,} of {index['shards']:,}: {counted(len(rows), 'samples')}.")
    if rank == 0 and force:
        for path, number in _shards(folder):
            if number >= index["shards"]:
                path.unlink()
    return Written(made, kept)


def _index(
    run: Run,
    samples: Samples,
    folder: Path,
    data: Any,
    precision: Precision,
    shard: int,
    opened: dict[str, Any],
) -> dict[str, Any]:
    """What the shards are of. "key" is a digest of all that must be the same for two shards to belong together."""
    same = {
        "format": FORMAT,
        "run": _run_digest(run),
        "data": digest(json.dumps([fingerprint(digests(samples), samples), samples.names, samples.split]).encode()),
        "checkpoint": run.checkpoint,
        "tower": run.tower,
        "width": run.encoder.dim,
        "precision": precision,
        "shard": shard,
        "samples": len(samples),
    }
    return {
        **same,
        "shards": -(-len(samples) // shard),
        "key": digest(json.dumps(same, sort_keys=True).encode()),
        "classes": samples.classes,
        "noun": run.kind.noun,
        "run_path": _beside(run.path, folder),
        "root_path": "" if (root := run.kind.root(data)) is None else _beside(root, folder),
        "data_path": _beside(data, folder) if isinstance(data, str | Path) and Path(data).exists() else origin(data),
        "opened": opened,
    }


def _run_digest(run: Run) -> str:
    """By what an encoder is known again: its description and its weights."""
    state = run.encoder.state_dict().values()
    weights = (part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for part in state)
    return digest(json.dumps(run.encoder.spec, sort_keys=True, default=str).encode(), *weights)


def _beside(path: str | Path, folder: Path) -> str:
    """A path as it is seen from the directory, so that both can be moved together."""
    try:
        return os.path.relpath(Path(path).resolve(), folder.resolve())
    except ValueError:  # on another drive of Windows
        return str(Path(path).resolve())


REMEDY = "name another --out, or replace what is there by --force"


def insist_own(folder: Path, *, force: bool) -> None:
    """Raise AlreadyThere where a directory of shards cannot be written as there is a file, or other files are in it."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise AlreadyThere(f"--out {str(folder)!r} is a file, and shards need a directory: name another --out")
    if force or (folder / INDEX).exists():
        return
    own = {path for path, _ in _shards(folder)}
    if other := [path for path in folder.iterdir() if path not in own and not is_leftover(path)]:
        raise AlreadyThere(f"--out {str(folder)!r} holds other files, such as {other[0].name!r}: {REMEDY}")


def _insist_free(folder: Path, index: dict[str, Any], *, force: bool) -> None:
    insist_own(folder, force=force)
    if not folder.exists() or force:
        return
    if (folder / INDEX).exists():
        try:
            saved = _read_index(folder)
        except Damaged:  # it is written again where the shards are of these embeddings
            saved = index
        if saved["key"] != index["key"]:
            said = {"run": "another encoder", "data": "other data"}
            asked = ("checkpoint", "tower", "precision", "shard")
            other = [name for name in (*said, *asked) if saved[name] != index[name]]
            words = [said.get(name) or f"--{name} {saved[name]}" for name in other]
            raise AlreadyThere(
                f"{str(folder)!r} holds embeddings of {saved['run_path']!r} on {saved['data_path']!r}, and these are "
                f"others; theirs: {', '.join(words)}. To go on give the same; else {REMEDY}"
            )
    for path, _ in _shards(folder):
        if _key_of(path) != index["key"]:
            raise AlreadyThere(f"{str(path)!r} is not of this run and these data: {REMEDY}")


def _table(run: Run, samples: Samples, first: int, precision: Precision, key: str) -> pa.Table:
    rows = run.rows(samples).numpy()
    if precision == "float16":
        with np.errstate(over="ignore"):
            rows = rows.astype(np.float16)
        if not np.isfinite(rows).all():
            raise UserError("some numbers of the vectors are too large for float16: give --precision float32")
    labels = [None if y == MISSING else samples.classes[y] for y in samples.label.tolist()]
    columns = {
        "index": pa.array(range(first, first + len(samples)), pa.int64()),
        "name": pa.array(samples.names, pa.string()),
        "label": pa.array(labels, pa.string()),
        "split": pa.array(samples.split, pa.string()),
        "group": pa.array([None if g == MISSING else g for g in samples.group.tolist()], pa.int64()),
        "digest": pa.array(digests(samples), pa.string()),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1]),
    }
    return pa.table(columns).replace_schema_metadata({_KEY: key})


def _write(table: pa.Table, path: Path) -> None:
    names: Any = [name for name in table.column_names if name != "vector"]
    pq.write_table(table, path, compression="snappy", use_dictionary=names, write_page_checksum=True)


def _shards(folder: Path) -> list[tuple[Path, int]]:
    found = [(path, match) for path in folder.iterdir() if (match := _SHARD.fullmatch(path.name))]
    return sorted(((path, int(match[1])) for path, match in found), key=lambda one: one[1])


def _key_of(path: Path) -> str | None:
    """The key in a shard's metadata; None where the file is no such shard, or is damaged."""
    try:
        return (pq.read_schema(path).metadata or {}).get(_KEY, b"").decode()
    except (OSError, ValueError):
        return None


def _belongs(path: Path, key: str, rows: int) -> bool:
    return _key_of(path) == key and pq.read_metadata(path).num_rows == rows


def _saved_key(folder: Path) -> str | None:
    try:
        return _read_index(folder)["key"]
    except (Damaged, NotFound):
        return None


def _read_index(folder: Path) -> dict[str, Any]:
    index = read_json(folder / INDEX, "the command that wrote the embeddings, `nearfar embed`, writes it again")
    if index.get("format") != FORMAT:
        raise UserError(f"{str(folder / INDEX)!r} is not of embeddings that this version reads")
    return index


class Embeddings:
    """Embeddings as `nearfar embed RUN DATA --out DIR` wrote them.

    path: the directory.  index: what index.json holds.
    Raises NotFound where the directory holds none, or a shard is missing; Damaged where a file is not as it was.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        how = "`nearfar embed RUN DATA --out DIR` writes one"
        if not self.path.is_dir():
            what = "a file" if self.path.exists() else "not there"
            raise NotFound(f"{str(path)!r} is {what}, and a directory of embeddings is wanted: {how}")
        if not (self.path / INDEX).is_file():
            raise NotFound(f"{str(path)!r} is no directory of embeddings, as it has no {INDEX}: {how}")
        self.index = _read_index(self.path)
        there = {number: path for path, number in _shards(self.path)}
        again = "give the command that wrote the embeddings again: it writes what is missing"
        if missing := [number for number in range(self.index["shards"]) if number not in there]:
            raise NotFound(
                f"{len(missing):,} of {self.index['shards']:,} shards of {str(path)!r} are missing, such as "
                f"'shard-{missing[0]:05d}.parquet': {again}"
            )
        self.files = [there[number] for number in range(self.index["shards"])]
        for file in self.files:
            self._insist_own(file)
        if more := sorted(there.keys() - set(range(self.index["shards"]))):
            raise Damaged(f"{str(there[more[0]])!r} is not of these embeddings: remove it")

    def _insist_own(self, file: Path) -> None:
        key = _key_of(file)
        if key is None:
            raise self._damaged(file, "its end cannot be read")
        if key != self.index["key"]:
            raise Damaged(
                f"{str(file)!r} is of other embeddings than {INDEX} names: remove it, and give the command that wrote "
                "the embeddings again"
            )

    def _damaged(self, file: Path, why: object) -> Damaged:
        return Damaged(
            f"{str(file)!r} is damaged ({why}): remove it, and give the command that wrote the embeddings again"
        )

    def __len__(self) -> int:
        return self.index["samples"]

    @property
    def width(self) -> int:
        return self.index["width"]

    @property
    def classes(self) -> list[str]:
        return self.index["classes"]

    def blocks(self, first: int = 0) -> Iterator[Tensor]:
        """The vectors, shard by shard from the shard `first` on, in order: n x D, float32, of unit length."""
        for file in self.files[first:]:
            column: Any = self._read(file, ["vector"]).column("vector").combine_chunks()
            rows = torch.from_numpy(column.values.to_numpy().reshape(-1, self.width).astype(np.float32))
            if not bool(rows.isfinite().all()):
                raise self._damaged(file, "it holds numbers that are not finite")
            yield F.normalize(rows, dim=1)

    @cached_property
    def unit(self) -> Tensor:
        """All vectors at once: N x D, float32, of unit length."""
        rows, first = torch.empty(len(self), self.width), 0
        for block in self.blocks():
            rows[first : first + len(block)] = block
            first += len(block)
        return rows

    @cached_property
    def rows(self) -> dict[str, list[Any]]:
        """What is known of each: "name", "label" and "group" (None where unknown), "split", "digest"."""
        columns = ["name", "label", "split", "group", "digest"]
        table = pa.concat_tables([self._read(file, columns) for file in self.files])
        return {name: table.column(name).to_pylist() for name in columns}

    def columns(self, without: Collection[str] = ()) -> dict[str, list[Any]]:
        """What the shards hold of each sample, by column, but for some columns."""
        schema = pq.read_schema(self.files[0]).names if self.files else []
        names = [name for name in schema if name not in without]
        table = pa.concat_tables([self._read(file, names) for file in self.files]) if names else pa.table({})
        return {name: table.column(name).to_pylist() for name in names}

    @property
    def names(self) -> list[str]:
        return self.rows["name"]

    @property
    def label(self) -> Tensor:
        """N, int64, a position in `classes`, or MISSING."""
        place = {name: i for i, name in enumerate(self.classes)}
        return torch.tensor([MISSING if name is None else place[name] for name in self.rows["label"]])

    @property
    def group(self) -> Tensor:
        """N, int64, or MISSING."""
        return torch.tensor([MISSING if g is None else g for g in self.rows["group"]])

    def _read(self, file: Path, columns: list[str]) -> pa.Table:
        try:
            with pq.ParquetFile(file, page_checksum_verification=True) as opened:
                return opened.read(columns)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise self._damaged(file, str(error).splitlines()[0]) from error

    def run(self, given: str = "", *, trust: bool = False, tower: str | None = None) -> Run:
        """The run that made them.  given: where it is now.  tower: another one of its encoder.

        Raises NotFound where it is not there, ValueError where its encoder is another one by now.
        """
        path = Path(given) if given else Path(os.path.normpath(self.path / self.index["run_path"]))
        if not (path / "config.yaml").is_file():
            raise NotFound(f"the run that made {str(self.path)!r} is not at {str(path)!r}: say where by --run")
        run = Run(path, self.index["checkpoint"], tower=self.index["tower"] if tower is None else tower, trust=trust)
        if self.index["opened"] and tower is None:
            run.reading(self.index["opened"])
        return run

    def insist_same(self, run: Run) -> None:
        """Raise ValueError where a run's encoder is not the one that made the vectors."""
        if _run_digest(run) != self.index["run"]:
            raise UserError(
                f"{str(run.path)!r} has another encoder than the one that made {str(self.path)!r}: name that one by "
                "--run, or write the embeddings anew"
            )

    def root(self) -> Path | None:
        """The folder that names are relative to; None where the samples are no files, or are there no more."""
        root = Path(os.path.normpath(self.path / self.index["root_path"])) if self.index["root_path"] else None
        return root if root is not None and root.is_dir() else None

    def data(self, given: str = "") -> str:
        """Whence the samples are.  given: where they are now."""
        beside = self.path / self.index["data_path"]
        return given or (os.path.normpath(beside) if beside.exists() else self.index["data_path"])
