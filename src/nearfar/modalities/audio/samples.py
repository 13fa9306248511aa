"""Recordings as samples: whole ones, or pieces of them. Nothing of them is kept in memory but where they lie."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.data.labels import LabelColumn, some
from nearfar.data.samples import Samples, insist_few_bad
from nearfar.errors import Lost, UserError, counted
from nearfar.files import digest
from nearfar.modalities.audio.recordings import Recording, Store, examined, heard
from nearfar.modalities.audio.sources import Opened, find

MOST_RATE, MOST_SECONDS = 16_000, 4.0
"""Samples a second, and seconds of a view, that are taken at most where none are set."""

LONG = 30.0
"""Seconds of recordings of which it is told that they can be cut."""

CPU = torch.device("cpu")


@dataclass(slots=True, eq=False, kw_only=True)
class AudioSamples(Samples):
    """N recordings, or pieces of recordings, as they are heard at `rate` samples a second.

    row: of each, N, which recording it is of.  first, last: N, the frames of that recording, at its own rate, between
    which it lies.  store: where recordings lie.  recordings: what was found of each when it was first read.
    """

    PER_SAMPLE = ("row", "first", "last")
    FINITE = True  # each recording was looked through

    row: Tensor
    first: Tensor
    last: Tensor
    store: Store
    recordings: dict[int, Recording]
    rate: int

    @property
    def lengths(self) -> Tensor:
        """Samples of each, at `rate`: N, int64."""
        own = torch.tensor([self.recordings[row].rate for row in self.row.tolist()])
        return -((self.first - self.last) * self.rate // own)

    @property
    def seconds(self) -> Tensor:
        """Of each: N."""
        return self.lengths / self.rate

    def recording(self, i: int) -> Recording:
        return self.recordings[int(self.row[i])]

    def fetch(self, index: Tensor) -> tuple[Recordings]:
        """What views take: where some samples lie. Views read what they want of them."""
        return (Recordings(self, index.cpu()),)

    def heard(self, i: int, start: int, count: int) -> np.ndarray:
        """`count` numbers of sample i from `start` on, at `rate`: float32. Beyond its ends all is 0.

        Raises ValueError or OSError where it can be read no more.
        """
        row = int(self.row[i])
        known = self.recordings[row]
        if why := self.store.changed(row, known):
            raise UserError(why)
        return heard(self.store, row, known, int(self.first[i]), int(self.last[i]), start, count, self.rate)

    def crops(self, index: Sequence[int], start: Sequence[int], count: Sequence[int]) -> list[Tensor]:
        """The same of several. Raises Lost where some can be read no more."""
        made, lost = [], {}
        for k, given in enumerate(zip(index, start, count, strict=True)):
            try:
                made.append(torch.from_numpy(self.heard(*given)))
            except (UserError, OSError, RuntimeError) as error:
                why = (error.strerror if isinstance(error, OSError) else None) or str(error)
                lost[k] = (self.names[given[0]], why)
        if lost:
            raise Lost(lost)
        return made

    def contents(self) -> Iterator[bytes]:
        for i, (a, b) in enumerate(zip(self.first.tolist(), self.last.tolist(), strict=True)):
            known = self.recording(i)
            yield known.digest.encode() if (a, b) == (0, known.frames) else f"{known.digest} {a} {b}".encode()

    def to(self, device: torch.device | str) -> Self:
        return self


@dataclass(frozen=True)
class Recordings:
    """N samples that were not read yet: no tensor. device: where views of them are wanted."""

    samples: AudioSamples
    index: Tensor
    device: torch.device = CPU

    def count(self) -> int:
        return len(self.index)

    def to(self, device: torch.device) -> Recordings:
        return replace(self, device=device)

    def select(self, index: Tensor) -> Recordings:
        return replace(self, index=self.index[index.cpu()])

    def pin(self) -> Recordings:
        return self


def open_audio(
    data: Any,
    *,
    labels: Any = None,
    label_column: str | LabelColumn = "",
    keep: Sequence[str] = (),
    rate: int = 0,
    array_rate: int = 0,
    cut: float = 0.0,
    max_bad: float = 0.05,
) -> AudioSamples:
    """Open recordings. Each is looked through once, block by block; none is kept.

    data: see `nearfar.modalities.audio.sources.WANTED`. Of a table the columns label, group, attribute and split are
    read where they are there, and start and end, in seconds: then each row is a piece of a recording.
    labels: the word folders, a table, an array, or None for those that the data bring.
    label_column: as in `LabelColumn`.
    keep: words that are labels, though they usually say that nothing is known.
    rate: samples a second at which all are heard; 0 takes that of most, `MOST_RATE` at most.
    array_rate: of arrays that do not tell.  cut: seconds of the pieces that longer recordings are cut into; 0 for none.
    max_bad: the share of the recordings that may be unreadable; they are skipped and listed.

    Raises FileNotFoundError where there is nothing, TypeError where it is nothing of these, ValueError where it holds
    no recordings, or too many bad ones, ModuleNotFoundError where soundfile is wanted and missing.
    """
    if isinstance(data, AudioSamples):
        return data
    column = LabelColumn.of(label_column)
    opened = find(data, labels=labels, column=column, keep=keep, array_rate=array_rate)
    assert opened.labels is not None
    good, why = examined(opened.store)
    pieces, bad = _pieces(opened, good, why, cut)
    broken = [(opened.names[e], bad[e]) for e in sorted(bad)]
    insist_few_bad(broken, len(opened.names), max_bad, f"recordings of {opened.given}")
    entry = torch.tensor([piece[0] for piece in pieces])
    known, several = opened.labels, Counter(entry.tolist())
    group = known.group[entry]
    if len(several) > 1 < max(several.values()):  # the pieces of a recording belong together, unless it is the only one
        own = torch.tensor([several[e] > 1 for e in entry.tolist()]) & (group == MISSING)
        group = torch.where(own, int(known.group.max()) + 1 + entry, group)
    rate = rate or min(MOST_RATE, Counter(one.rate for one in good.values()).most_common(1)[0][0])
    kept = AudioSamples(
        names=[piece[1] for piece in pieces],
        label=known.label[entry],
        classes=known.classes,
        group=group,
        attribute=known.attribute[entry],
        split=[known.split[e] for e in entry.tolist()],
        skipped=[(opened.names[e], bad[e]) for e in sorted(bad)],
        notes=opened.notes,
        max_bad=max_bad,
        label_column=column.name if labels is None and bool((known.label != MISSING).any()) else "",
        row=torch.tensor([opened.row[e] for e in entry.tolist()]),
        first=torch.tensor([piece[2] for piece in pieces]),
        last=torch.tensor([piece[3] for piece in pieces]),
        store=opened.store,
        recordings=good,
        rate=rate,
    )
    kept.digest = [content.decode() if len(content) == 16 else digest(content) for content in kept.contents()]
    kept.notes += _notes(opened, list(good.values()), rate)
    if not cut and (long := float(kept.seconds.median())) >= LONG:
        kept.notes.append(
            f"Half of the recordings are longer than {long:.0f} s, and each is one sample: --cut {2 * MOST_SECONDS:g} "
            "makes pieces, each of them a sample."
        )
    return kept


Piece = tuple[int, str, int, int]
"""Of which entry, its name, and the frames between which it lies."""


def _pieces(
    opened: Opened, good: dict[int, Recording], why: dict[int, str], cut: float
) -> tuple[list[Piece], dict[int, str]]:
    """The samples that entries make, and why others make none."""
    pieces: list[Piece] = []
    bad: dict[int, str] = {}
    for e, (name, row) in enumerate(zip(opened.names, opened.row, strict=True)):
        if row in why:
            bad[e] = why[row]
            continue
        known, first, last = good[row], 0, good[row].frames
        if opened.span is not None:
            start, end = opened.span[e]
            if not 0 <= start < min(end, known.seconds) or (end != math.inf and end > known.seconds + 0.5):
                bad[e] = f"it should be from {start:g} to {end:g} s of a recording of {known.seconds:.2f} s"
                continue
            first, last = round(start * known.rate), min(last, round(min(end, known.seconds) * known.rate))
            if first >= last:
                bad[e] = "it is empty: no sample is in it"
                continue
        step = round(cut * known.rate) if cut else 0
        if not step or last - first < 1.5 * step:
            pieces.append((e, name, first, last))
            continue
        starts = range(first, last - step // 2, step)  # what is left at the end belongs to a piece if it is short
        ends = [*starts[1:], last]
        pieces += [(e, f"{name}@{a / known.rate:g}", a, b) for a, b in zip(starts, ends, strict=True)]
    return pieces, bad


def _notes(opened: Opened, known: list[Recording], rate: int) -> list[str]:
    """What was done to recordings that are not as they are heard."""
    notes = []
    if several := [one.channels for one in known if one.channels > 1]:
        are = "recording has" if len(several) == 1 else "recordings have"
        notes.append(f"{len(several):,} {are} several channels ({max(several)} at most), which are averaged.")
    rates = Counter(one.rate for one in known)
    if others := sorted(rates.keys() - {rate}):
        told = some([f"{own:,} Hz: {rates[own]:,}" for own in others])
        notes.append(
            f"{counted(sum(rates[own] for own in others), 'recordings')} of another rate ({told}) are resampled to "
            f"{rate:,} Hz (--rate)."
        )
    return notes


def view_seconds(samples: AudioSamples) -> float:
    """The length that nine in ten samples do not exceed, `MOST_SECONDS` at most, rounded up to hundredths."""
    usual = float(samples.seconds.quantile(0.9))
    return min(MOST_SECONDS, max(0.05, math.ceil(100 * usual) / 100))


def blocks(samples: AudioSamples, most: Callable[[int], int]) -> Iterator[tuple[int, Tensor]]:
    """Each sample as a tensor of one dimension, cut in the middle to `most` of its length."""
    for i, length in enumerate(samples.lengths.tolist()):
        count = min(length, most(length))
        yield i, torch.from_numpy(samples.heard(i, (length - count) // 2, count))
