"""`nearfar embed --out DIR`, `search`, `duplicates`, `outliers`, `curate` and `suspects`: embeddings as a product."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from nearfar.cli.flags import ForceArg, parsed
from nearfar.cli.printing import print
from nearfar.errors import UserError, counted
from nearfar.files import insist_free
from nearfar.ranges import Checked, PositiveInt

if TYPE_CHECKING:
    from nearfar.cli.use import Embed
    from nearfar.embeddings.shards import Embeddings

FILES = (".csv", ".json", ".npy", ".parquet", ".pt", ".txt")
"""Endings of files that are no embeddings of ours."""

DirArg = Annotated[
    str,
    tyro.conf.Positional,
    tyro.conf.arg(metavar="DIR", help="A directory that `nearfar embed RUN DATA --out DIR` wrote."),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfDir(Checked):
    """What commands on embeddings share."""

    directory: DirArg
    page: str = ""
    """A page with pictures to write, a file .html."""
    save: str = ""
    """A table of all of it to write, a file .csv."""
    force: ForceArg = False
    run: str = ""
    """The run that made the embeddings, where it was moved."""
    data: str = ""
    """The data, for pictures, where they were moved."""
    trust: bool = False
    """Run the files of code that the run names."""

    def check(self) -> None:
        super().check()
        for path, flag, suffix in ((self.page, "--page", ".html"), (self.save, "--save", ".csv")):
            if path and Path(path).suffix.lower() != suffix:
                raise UserError(f"{flag} {path!r}: a file {suffix} is written: name one")
            if path:
                insist_free(Path(path), flag, force=self.force)

    def held(self) -> Embeddings:
        from nearfar.embeddings.shards import Embeddings

        return Embeddings(self.directory)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search(OfDir):
    """The samples most similar to a query, by cosine.

    The search is exact, shard by shard; --index ivf looks into the nearest lists of an inverted file (FAISS), which is
    kept in DIR, and says how much of the exact answer that finds."""

    query: Annotated[
        str,
        tyro.conf.Positional,
        tyro.conf.arg(
            metavar="QUERY",
            help="The number of a row; a file or folder of what the run embeds, or of the other side of its pairs; "
            "words, where the run takes words; a .npy file of vectors.",
        ),
    ]
    k: PositiveInt = 10
    """How many to find."""
    index: Literal["exact", "ivf"] = "exact"
    """How to search."""
    device: str = "auto"
    """Where the query is embedded: auto, cpu, cuda, cuda:1."""


SHOWN = 20
"""Queries whose results are printed; those of more are in --save and --page."""


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


def search(argv: list[str]) -> int:
    """Find what is nearest."""
    call = parsed(Search, "search", argv)
    from nearfar.embeddings import page
    from nearfar.embeddings.search import HEADER, Index, asked, described
    from nearfar.embeddings.search import search as found_in
    from nearfar.files import replace_csv

    held = call.held()
    queries = asked(held, call.query, call.run, trust=call.trust, device=call.device)
    how = Index(held) if call.index == "ivf" else None
    found = found_in(held, queries, min(call.k, len(held)) if call.k == Search.k else call.k, how)
    rows = described(found, held, queries)
    each = found.index.shape[1]
    _print_table(["query", "rank", "cosine", "row", "label", "path"],
                 [[row[i] for i in (0, 1, 5, 2, 4, 3)] for row in rows[: SHOWN * each]])  # fmt: skip
    if len(queries.names) > SHOWN:
        print(f"{SHOWN} of {len(queries.names):,} queries are shown; --save writes all.")
    if how:
        share, tried = how.recall(each)
        print(f"Recall@{each} against an exact search, on {tried} rows: {100 * share:.1f} %.")
    if call.save:
        print(f"Table: {replace_csv(Path(call.save), [HEADER, *rows])}")
    if call.page:
        sections = page.results(held, held.run(call.run, trust=call.trust), queries, found, call.data)
        facts = [f"{call.query}, among {counted(len(held), held.index['noun'])} of {call.directory}."]
        print(f"Page:  {page.save(Path(call.page), 'Search', facts, sections)}")
    return 0


def _print_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Columns under their names, each as wide as its longest cell; the last is cut by nothing."""
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    width = [max(len(row[i]) for row in cells) for i in range(len(header))]
    for row in cells:
        print("  ".join(cell.ljust(width[i]) for i, cell in enumerate(row)).rstrip())
