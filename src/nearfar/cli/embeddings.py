"""`nearfar embed --out DIR`, `search`, `duplicates`, `outliers`, `curate` and `suspects`: embeddings as a product."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nearfar.cli.printing import print
from nearfar.errors import UserError, counted

if TYPE_CHECKING:
    from nearfar.cli.use import Embed

FILES = (".csv", ".json", ".npy", ".parquet", ".pt", ".txt")
"""Endings of files that are no embeddings of ours."""


def is_sharded(out: str) -> bool:
    """Whether --out names a directory of shards, and not a .npz file. Raises ValueError for files of other kinds."""
    suffix = Path(out).suffix.lower()
    if out and suffix in FILES and not Path(out).is_dir():
        raise UserError(
            f"--out {out!r}: embeddings are a file .npz, or a directory of Parquet shards: name one of them"
        )
    return bool(out) and (suffix != ".npz" or Path(out).is_dir())


def embed_sharded(asked: Embed) -> int:
    """Write the embeddings of some data as shards."""
    from nearfar.embeddings import shards
    from nearfar.files import insist_text
    from nearfar.run import load

    insist_text(asked.out, "--out")
    run = load(asked.run, asked.checkpoint, tower=asked.tower, trust=asked.trust).on(asked.device, asked.batch)
    folder = Path(asked.out)
    samples = run.reading(asked.given()).open(
        asked.data, labels=asked.labels or None, label_column=asked.label_column, keep_words=asked.keep_words
    )
    for note in samples.notes:
        print(note)
    opened = {name: value for name, value in asked.given().items() if value}
    done = shards.write(
        run,
        samples,
        folder,
        data=asked.data,
        precision=asked.precision,
        shard=asked.shard,
        opened=opened,
        force=asked.force,
        say=print,
    )
    there = f"; {counted(done.kept, 'shards')} were there already" if done.kept else ""
    numbers = f"{counted(len(samples), 'samples')} x {run.encoder.dim} numbers, {asked.precision}"
    print(f"{numbers}, in {counted(done.made, 'shards')} written now{there}: {folder}")
    if samples.skipped:
        files = counted(len(samples.skipped), "files")
        print(f"{files} could not be read: no row, such as of {samples.skipped[0][0]!r}")
    return 0
