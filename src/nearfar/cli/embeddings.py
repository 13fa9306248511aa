"""`nearfar embed --out DIR`, `search`, `duplicates`, `outliers`, `curate` and `suspects`: embeddings as a product."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from nearfar.cli.flags import CheckpointArg, ForceArg, OnDevice, command, from_here, parsed
from nearfar.cli.printing import print
from nearfar.cli.use import DataArg, OfRun, RunArg, TrustArg, opened
from nearfar.errors import UserError, counted
from nearfar.files import insist_free
from nearfar.ranges import Checked, PositiveInt, Seed, UnitInterval

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


def insist_files(page: str, save: str, *, force: bool, page_flag: str = "--page") -> None:
    """Raise ValueError, before anything is read, where a file to write has another ending, or is there."""
    for path, flag, suffix in ((page, page_flag, ".html"), (save, "--save", ".csv")):
        if path and Path(path).suffix.lower() != suffix:
            raise UserError(f"{flag} {path!r}: a file {suffix} is written: name one")
        if path:
            insist_free(Path(path), flag, force=force)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfDir(Checked):
    """What commands on embeddings share."""

    directory: DirArg
    force: ForceArg = False

    def held(self) -> Embeddings:
        from nearfar.embeddings.shards import Embeddings

        return Embeddings(self.directory)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Looking(OfDir):
    """What those share that show samples."""

    page: str = ""
    """A page with pictures to write, a file .html."""
    save: str = ""
    """A table of all of it to write, a file .csv."""
    run: str = ""
    """The run that made the embeddings, where it was moved."""
    data: str = ""
    """The data, for pictures, where they were moved."""
    trust: TrustArg = False

    def check(self) -> None:
        super().check()
        insist_files(self.page, self.save, force=self.force)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search(Looking):
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Duplicates(Looking):
    """Samples that are nearly the same, by cosine: leaks between splits first, then groups.

    --save writes a table that `nearfar train` and the others take as --labels: its column group holds near-duplicates
    together, so that they are no negatives of each other and never on both sides of a split."""

    threshold: UnitInterval = 0.95
    """The cosine from which on two samples are near-duplicates."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outliers(Looking):
    """Samples far from their nearest neighbors: errors in the data, or rare cases that deserve more samples."""

    neighbors: PositiveInt = 10
    """Nearest neighbors whose mean cosine is the number."""
    count: PositiveInt = 20
    """How many to show."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curate(OfDir):
    """A balanced part of the data to train on: hierarchical k-means and a draw that is even over its clusters (arXiv
    2405.15613), if asked for after leaving out semantic duplicates (arXiv 2303.09540).

    Samples of the splits val and test are not chosen from, and stay as they are."""

    keep: PositiveInt
    """How many samples to keep."""
    out: str = "curated.csv"
    """Where the list goes."""
    dedup: UnitInterval = 0.0
    """A cosine from which on one of two samples of a cluster is left out first; 0 leaves none out."""
    clusters: tuple[PositiveInt, ...] = ()
    """Clusters of each level, from the samples up; by default 4 times the root of their number, and a tenth
    of that above it."""
    seed: Seed = 0
    """Of clusters and draws."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FindSuspects(OfRun, OnDevice):
    """Labels that are probably wrong: those that a linear classifier and the nearest neighbors both contradict, neither
    of which learned from them, by more than the threshold of a class (confident learning, arXiv 1911.00068)."""

    run: RunArg
    data: DataArg
    labels: str = ""
    """The labels to judge, as in training."""
    label_column: str = ""
    """The column that holds them; that of training if none is named."""
    keep_words: tuple[str, ...] = ()
    """Words such as NA or None that are labels all the same."""
    checkpoint: CheckpointArg = "last"
    tower: str = ""
    """Of an encoder with several towers, the one to use, by its name."""
    page: str = ""
    """A page with pictures to write, a file .html."""
    save: str = ""
    """A table of all of them to write, a file .csv."""
    force: ForceArg = False
    seed: Seed = 0
    """Of folds."""
    trust: TrustArg = False

    def check(self) -> None:
        super().check()
        insist_files(self.page, self.save, force=self.force)


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

    insist_text(asked.out, "--out")
    if asked.patches:
        raise UserError(f"--patches: maps go to a file .npz, and --out {asked.out!r} is for shards: name a file")
    folder = Path(asked.out)
    shards.insist_own(folder, force=asked.force)
    run = opened(asked.run, asked.checkpoint, tower=asked.tower, trust=asked.trust).on(asked.device, asked.batch)
    samples = run.reading(asked.given()).open(
        asked.data, labels=asked.labels or None, label_column=asked.label_column, keep_words=asked.keep_words
    )
    for note in samples.notes:
        print(note)
    changed = {name: value for name, value in asked.given().items() if value}
    done = shards.write(
        run,
        samples,
        folder,
        data=asked.data,
        precision=asked.precision,
        shard=asked.shard,
        opened=changed,
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
    most = len(held) - (queries.own is not None)
    if call.k > most > 0:
        print(f"There are {most:,} to find: --k {call.k} finds all.")
    found = found_in(held, queries, min(call.k, most), how)
    rows = described(found, held, queries)
    each = found.index.shape[1]
    _print_table(["query", "rank", "cosine", "row", "label", "path"],
                 [[row[i] for i in (0, 1, 5, 2, 4, 3)] for row in rows[: SHOWN * each]])  # fmt: skip
    if len(queries.names) > SHOWN:
        print(f"{SHOWN} of {len(queries.names):,} queries are shown; --save writes all.")
    if how and len(held) > 1:
        share, tried = how.recall(each)
        print(f"Recall@{each} against an exact search, on {tried} rows that look for others: {100 * share:.1f} %.")
    if call.save:
        print(f"Table: {replace_csv(Path(call.save), [HEADER, *rows])}")
    if call.page:
        sections = page.results(held, held.run(call.run, trust=call.trust), queries, found, call.data)
        asked_for = f"Row {call.query}" if queries.own else call.query
        _page(call, held, "Search", f"{asked_for}, among {{}}.", sections)
    return 0


def _page(call: Looking, held: Embeddings, title: str, fact: str, sections: Sequence[Any]) -> None:
    """Write the page, and say where it is. fact: a sentence with {} for how many samples there are."""
    from nearfar.embeddings import page

    facts = [fact.replace("{}", f"{counted(len(held), held.index['noun'])} of {call.directory}")]
    print(f"Page:  {page.save(Path(call.page), title, facts, sections)}")


def duplicates(argv: list[str]) -> int:
    """Find near-duplicates."""
    call = parsed(Duplicates, "duplicates", argv)
    from nearfar.embeddings import page
    from nearfar.embeddings.copies import copies
    from nearfar.files import replace_csv

    held = call.held()
    found = copies(held, call.threshold)
    noun, names = held.index["noun"], held.names
    for line in found.leaks():
        print(line)
    print(found.summary())
    if pairs := found.leaking()[:SHOWN]:
        rows = [(f"{s:.4f}", found.split(i), names[i], found.split(j), names[j]) for i, j, s in pairs]
        print("")
        _print_table(["cosine", "split", "path", "split", "path"], rows)
    if groups := found.groups():
        print("")
        heads = [(len(rows), f"{found.least(rows):.4f}", ", ".join(names[i] for i in rows[:3])) for rows in groups]
        _print_table(["size", "least cosine", "such as"], heads[:SHOWN])
        if len(groups) > SHOWN:
            print(f"{SHOWN} of {len(groups):,} groups are shown; --save writes all {noun}.")
    if call.save:
        print(f"Table: {replace_csv(Path(call.save), found.table())}")
        print(f"Go on: give it as --labels {from_here(call.save)}, which keeps near-duplicates together.")
    if call.page:
        sections = found.sections(held.run(call.run, trust=call.trust), call.data, page.MOST)
        _page(call, held, "Near-duplicates", f"{{}}. {found.summary()}", sections)
    return 0


def outliers(argv: list[str]) -> int:
    """Find what lies far from everything else."""
    call = parsed(Outliers, "outliers", argv)
    from nearfar.embeddings import page
    from nearfar.files import replace_csv
    from nearfar.report.gallery import Group
    from nearfar.report.samples import nearness_of

    held = call.held()
    if len(held) < 2:
        raise UserError(f"{call.directory!r} holds a single sample, which has no neighbors")
    near = nearness_of(held.unit, min(call.neighbors, len(held) - 1))
    order = near.argsort(stable=True).tolist()
    quarter, median, third = (float(near[order[round(q * (len(near) - 1))]]) for q in (0.25, 0.5, 0.75))
    edge = quarter - 3 * (third - quarter)
    far = sum(float(near[i]) < edge for i in order)
    names, labels = held.names, held.rows["label"]
    rows = [(f"{float(near[i]):.4f}", str(i), labels[i] or "", names[i]) for i in order]
    said = (
        f"Half of the {counted(len(held), held.index['noun'])} have a mean cosine above {median:.4f} with their "
        f"{min(call.neighbors, len(held) - 1)} nearest; {far:,} lie below {edge:.4f}, three interquartile ranges under "
        "the first quartile."
    )
    print(said)
    print("")
    _print_table(["similarity", "row", "label", "path"], rows[: call.count])
    if call.save:
        header = ["path", "row", "label", "similarity", "far"]
        table = [[name, row, label, s, "yes" if float(near[int(row)]) < edge else "no"] for s, row, label, name in rows]
        print(f"Table: {replace_csv(Path(call.save), [header, *table])}")
    if call.page:
        shown = order[: min(call.count, page.MOST)]
        seen = page.pictures(held, held.run(call.run, trust=call.trust), shown, call.data)
        tiles = [page.tile(seen[i], float(near[i])) for i in shown]
        lead = "The farthest first. The number is the mean cosine similarity to the nearest neighbors."
        section = page.Section("Outliers", lead, "outliers", page.gallery(seen[-1], [Group(tiles, len(tiles))]))
        _page(call, held, "Outliers", f"{{}}. {said}", [section])
    return 0


def curate(argv: list[str]) -> int:
    """Choose what to train on."""
    call = parsed(Curate, "curate", argv)
    out = Path(call.out)
    if out.suffix.lower() != ".csv":
        raise UserError(f"--out {call.out!r}: a list .csv is written: name one")
    insist_free(out, force=call.force)
    from nearfar.embeddings.curate import curate, evenness
    from nearfar.embeddings.lists import candidates, write_list

    held = call.held()
    rows = candidates(held)
    made = curate(
        held.unit[rows], call.keep, dedup=call.dedup or None, counts=list(call.clusters) or None, seed=call.seed
    )
    if call.dedup:
        print(f"{made.duplicates:,} of {len(rows):,} are left out: as alike as {call.dedup:g} to one of their cluster.")
    for name, sizes in (("before", made.before), ("after", made.after)):
        used = sizes[sizes > 0]
        print(
            f"Clusters {name}: {counted(len(used), 'clusters')} of {int(used.min()):,} to {int(used.max()):,} "
            f"{held.index['noun']}, as even as {evenness(sizes):,.1f} of one size."
        )
    print(f"Levels: {', '.join(map(str, made.counts))} clusters, from the samples up.")
    is_list = write_list(held, rows[made.kept], out)
    print(f"{call.keep:,} of {len(rows):,} {held.index['noun']} to train on: {out}")
    if is_list:
        print(f"Go on:  {command('train', 'simclr', out, flags={})}")
    else:
        data = held.data()
        print("The samples are no files: what is not chosen stands in the split val, and is not trained on.")
        print(f"Go on:  {command('train', 'simclr', data, flags={'labels': from_here(out)})}")
    return 0


def suspects(argv: list[str]) -> int:
    """Find labels that are probably wrong."""
    call = parsed(FindSuspects, "suspects", argv)
    from nearfar.embeddings import page
    from nearfar.embeddings.suspects import HEADER, find
    from nearfar.files import replace_csv

    run = opened(call.run, call.checkpoint, tower=call.tower, trust=call.trust).reading(call.given())
    made = find(
        run.on(call.device, call.batch),
        call.data,
        labels=call.labels or None,
        label_column=call.label_column,
        keep_words=call.keep_words,
        seed=call.seed,
        say=print,
    )
    rows = made.rows()
    said = (
        f"Suspected: {counted(len(rows), 'labels')} of {made.found.judged:,}; {100 * made.found.confirmed:.1f} % are "
        "named as they are given by models that did not learn from them."
    )
    print(said)
    if rows:
        print("")
        _print_table(
            ["margin", "label", "proposed", "path"], [(m, y, other, name) for name, y, other, m in rows[:SHOWN]]
        )
        if len(rows) > SHOWN:
            print(f"{SHOWN} of {len(rows):,} are shown; --save writes all.")
    if call.save:
        print(f"Table: {replace_csv(Path(call.save), [HEADER, *rows])}")
    if call.page:
        section = made.section(run, page.MOST)
        facts = [f"{said} {call.data}, by the encoder of {call.run}."]
        print(f"Page:  {page.save(Path(call.page), 'Suspected labels', facts, [section] if section else [])}")
    return 0


def _print_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Columns under their names, each as wide as its longest cell; the last is cut by nothing."""
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    width = [max(len(row[i]) for row in cells) for i in range(len(header))]
    for row in cells:
        print("  ".join(cell.ljust(width[i]) for i, cell in enumerate(row)).rstrip())
