"""Sentences in memory: lines of a file, a column of a table, a list; or pairs and triplets of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.data import csv, tables
from nearfar.data.labels import LabelColumn, some
from nearfar.data.samples import Samples
from nearfar.errors import NotFound, UserError, WrongType, counted
from nearfar.modalities.recognize import sentence_column
from nearfar.modalities.text.tokenizer import Tokenizer
from nearfar.modalities.text.views import Sentences

WANTED = (
    "a .txt file of one sentence a line, a .csv, .tsv, .jsonl or .parquet file (all may be .gz but the last), a list "
    "of texts, a frame, a mapping of columns, or a datasets.Dataset"
)


@dataclass(slots=True, eq=False, kw_only=True)
class TextSamples(Samples):
    """N sentences. names: the position of each in the data, from 0, as text: empty ones are left out, and count.

    texts: of each sample its sentence, and those that are paired with it.  tokenizer: that of the run which the samples
    were opened for; None where it is still to be learned.
    """

    PER_SAMPLE = ("texts",)
    FINITE = True

    texts: list[tuple[str, ...]]
    tokenizer: Tokenizer | None = None

    @property
    def sides(self) -> int:
        """Sentences of a sample: 1, or 2 of pairs and 3 of triplets."""
        return len(self.texts[0]) if self.texts else 1

    def fetch(self, index: Tensor) -> tuple[Sentences, ...]:
        """What views take: for each column the sentences of some samples."""
        rows = [self.texts[i] for i in index.tolist()]
        return tuple(Sentences(column) for column in zip(*rows, strict=True))

    def contents(self) -> Iterator[bytes]:
        yield from ("\0".join(row).encode() for row in self.texts)

    def to(self, device: torch.device | str) -> Self:
        return self


def open_texts(
    data: Any,
    *,
    columns: Sequence[str] = ("",),
    labels: Any = None,
    label_column: str | LabelColumn = "",
    keep: Sequence[str] = (),
    concepts: str = "",
) -> TextSamples:
    """Open sentences for training, or for an encoder that was trained.

    data: see `WANTED`. Of a table, the columns split, group and attribute are read where they are there. Sentences that
    hold nothing but white space are left out and counted, and so are pairs and triplets of which one is empty.
    columns: of the sentences; "" is the one called text or sentence; the second and third pair with the first.
    labels: a table of index and label, an array, or None for the column `label_column`, which must be there, or by
        default label, if there is one.
    keep: words that are labels, though they usually say that nothing is known.
    concepts: which of the columns may hold lists of words.

    Raises FileNotFoundError where there is nothing, ValueError where a column is absent or holds no sentences, or bytes
    are no UTF-8.
    """
    if isinstance(data, TextSamples):
        return data
    wanted = LabelColumn.of(label_column)
    given = f"'{data}'" if isinstance(data, str | os.PathLike) else f"the {type(data).__name__}"
    lines = _lines(data)
    if lines is not None:
        if named := [name for name in columns if name]:
            raise UserError(f"{given} has a sentence in each line and no column {named[0]!r}: leave the column out")
        table = None
        rows = [(line,) for line in lines]
        if labels is None:
            wanted.find((), given)
    else:
        table, _ = tables.read(data)
        rows = list(
            zip(*(_column(table, name, given, bool(name) and name == concepts) for name in columns), strict=True)
        )
    _insist_text(rows, given)
    names = [str(i) for i in range(len(rows))]
    known = tables.known(table, names, given, labels, wanted, keep, noun="sentence")
    full = [i for i, row in enumerate(rows) if all(not text.isspace() and text for text in row)]
    if not full:
        raise UserError(f"{given} has no sentence that is not empty")
    which = torch.tensor(full)
    part = "sentence" if len(columns) == 1 or concepts else "pair" if len(columns) == 2 else "triplet"
    reason, plural = "a sentence of it is empty", "a sentence of each is empty"
    if len(columns) == 1:
        reason, plural = "it is empty", "they are empty"
    elif concepts:
        reason, plural = "it or its list is empty", "they or their lists are empty"
    empty = sorted(set(range(len(rows))) - set(full))
    notes = list(known.notes)
    kept = [rows[i] for i in full]
    group = known.group[which]
    if len(columns) > 1 and not concepts:
        group, again = _grouped(kept, group)
        if again:
            notes.append(
                f"{counted(again, part + 's')} hold a sentence that stands in another one too: they are not each "
                "other's negatives (--groups ignore makes them so)."
            )
    if empty:
        why = reason if len(empty) == 1 else plural
        notes.insert(0, f"{counted(len(empty), part + 's')} of {len(rows):,} left out: {why} ({some(empty)}).")
    return TextSamples(
        names=[names[i] for i in full],
        label=known.label[which],
        classes=known.classes,
        group=group,
        attribute=known.attribute[which],
        split=[known.split[i] for i in full],
        skipped=[(names[i], reason) for i in empty],
        notes=notes,
        label_column=wanted.name if labels is None and bool((known.label != MISSING).any()) else "",
        texts=kept,
    )


def _grouped(rows: Sequence[tuple[str, ...]], group: Tensor) -> tuple[Tensor, int]:
    """The groups of pairs or triplets, N, in which those that share an anchor or a positive are together, whatever its
    case and white space; and how many samples share one. group: those that the data name."""
    number: dict[str | int, int] = {}
    links, common = [], Counter[int]()
    for i, (row, own) in enumerate(zip(rows, group.tolist(), strict=True)):
        texts = {" ".join(text.casefold().split()) for text in row[:2]}
        keys = [*texts, own] if own != MISSING else [*texts]
        links.extend((i, len(rows) + number.setdefault(key, len(number))) for key in keys)
        common.update(number[text] for text in texts)
    shared = {i for i, key in links if common[key - len(rows)] > 1}
    size = len(rows) + len(number)
    graph = coo_array((np.ones(len(links), bool), np.array(links).T), shape=(size, size))
    _, part = connected_components(graph, directed=False)
    alone = torch.tensor([i not in shared for i in range(len(rows))]) & (group == MISSING)
    return torch.from_numpy(part[: len(rows)]).long().masked_fill(alone, MISSING), len(shared)


def has_lines(data: Any) -> bool:
    """Whether data are lines or texts, and have no columns."""
    if isinstance(data, str | os.PathLike):
        return str(data).lower().endswith((".txt", ".txt.gz"))
    return isinstance(data, list | tuple)


def _lines(data: Any) -> list[str] | None:
    """The lines of a file of text, or the texts of a list; None of what has columns."""
    if isinstance(data, str | os.PathLike):
        path = Path(data)
        if not path.exists():
            raise NotFound(f"There is nothing at '{path}'. Wanted: {WANTED}.")
        if path.is_dir() or not path.name.lower().endswith((".txt", ".txt.gz", *tables.ENDINGS)):
            raise UserError(f"'{path}' holds no sentences that can be read here. Wanted: {WANTED}.")
        if not has_lines(data):
            return None
        lines = csv.read_text(path).replace("\r\n", "\n").split("\n")
        return lines[:-1] if lines[-1] == "" else lines
    if has_lines(data):
        if odd := [text for text in data if not isinstance(text, str)]:
            raise WrongType(f"a list of sentences is wanted, and it holds {odd[0]!r}, a {type(odd[0]).__name__}")
        return list(data)
    return None


def _column(table: pa.Table, name: str, given: str, lists: bool) -> list[str]:
    """The sentences of a column, "" where there is none. Raises ValueError where it is absent, or holds no text."""
    there = table.column_names
    found = csv.column(there, name) if name else sentence_column(there)
    if not found:
        wanted = f"no column {name!r}" if name else "no column called text or sentence"
        raise UserError(
            f"{given} has {wanted}; it has {', '.join(map(repr, there))}: name the sentences' by --text-column"
        )
    values = table[found].to_pylist()
    if lists:
        values = [" ".join(map(str, value)) if isinstance(value, list) else value for value in values]
    odd = next((value for value in values if not isinstance(value, str | None)), None)
    texts = [value for value in values if isinstance(value, str) and value.strip()]
    numbers = bool(texts) and all(not isinstance(csv.value(text.strip()), str) for text in texts)
    if odd is not None or numbers:
        shown = repr(odd if odd is not None else texts[0])
        raise UserError(f"the column {found!r} of {given} holds {shown} and no sentences: name another --text-column")
    return [value or "" for value in values]


def _insist_text(rows: list[tuple[str, ...]], given: str) -> None:
    """Raise ValueError where a sentence holds half a character, as texts that were cut between two bytes do."""
    for i, row in enumerate(rows):
        try:
            "".join(row).encode()
        except UnicodeEncodeError as error:
            raise UserError(f"sentence {i} of {given} is no text that can be written as UTF-8 ({error})") from error
