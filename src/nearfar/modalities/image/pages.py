"""TIFF files of several pages: each page is an image, known by its file's name and its number."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any, BinaryIO

import torch

from nearfar.batch import MISSING
from nearfar.data.archives import EndToEnd, Files, Parts, Source, Stamp
from nearfar.data.digests import stream_digest
from nearfar.data.labels import Labels, some
from nearfar.errors import UserError
from nearfar.modalities.image import tiff
from nearfar.modalities.image.held import Column
from nearfar.modalities.image.sources import SUFFIXES, Opened

Part = tuple[tiff.Page, ...] | str | None
"""An image in a file: its pages; or why they cannot be had; or None, the file as it is."""


@dataclass(slots=True)
class Pages:
    """Encoded images, of which some are pages of one file: image i is `parts[i]` of file `of[i]` of `source`."""

    source: Source
    of: list[int]
    parts: list[Part]
    known: dict[int, tuple[Stamp, str]] = field(default_factory=dict)  # digests of whole files
    lock: Any = field(default_factory=threading.Lock)

    def stream(self, row: int) -> BinaryIO | tiff.PageImage:
        part = self.parts[row]
        return self.source.stream(self.of[row]) if part is None else self._pages(row, part)

    def read(self, row: int) -> bytes | tiff.PageImage:
        part = self.parts[row]
        return self.source.read(self.of[row]) if part is None else self._pages(row, part)

    def stamp(self, row: int) -> Stamp:
        return self.source.stamp(self.of[row])

    def _pages(self, row: int, part: tuple[tiff.Page, ...] | str) -> tiff.PageImage:
        if isinstance(part, str):
            raise UserError(part)
        return tiff.PageImage(lambda: self.source.stream(self.of[row]), part, lambda: self._file_digest(self.of[row]))

    def _file_digest(self, file: int) -> str:
        """Of a whole file: taken once, however many pages it has, and again when the file may have changed."""
        with self.lock:
            stamp = self.source.stamp(file)
            known = self.known.get(file)
            if known is None or known[0] != stamp:
                with self.source.stream(file) as stream:
                    known = self.known[file] = stamp, stream_digest(stream)
        return known[1]


def apart(opened: Opened, workers: int) -> tuple[Opened, list[int]]:
    """The same with each page of a TIFF file as an image, named FILE#1 and so on; and the file of each image."""
    source, names = opened.source, opened.names
    each = list(range(len(names)))
    if not isinstance(source, Files | Parts | EndToEnd | Column):
        return opened, each
    files = [i for i, name in enumerate(names) if _may_be_tiff(name)]
    with ThreadPoolExecutor(max(1, workers)) as pool:
        listed = dict(zip(files, pool.map(lambda i: _listed(source, i), files), strict=True))
    pages = {i: several for i, several in listed.items() if isinstance(several, list)}
    bad = {i: why for i, why in listed.items() if isinstance(why, str)}
    if not pages and not bad:
        return opened, each
    of, parts, called = [], [], []
    for i, name in enumerate(names):
        here: list[Part] = [*pages[i]] if i in pages else [bad.get(i)]
        of += [i] * len(here)
        parts += here
        called += [name] if len(here) == 1 else [f"{name}#{k}" for k in range(1, len(here) + 1)]
    labels = None if opened.labels is None else _of_files(opened.labels, of)
    notes = [*opened.notes, *_notes(names, pages)]
    return replace(opened, source=Pages(source, of, parts), names=called, labels=labels, notes=notes), of


def grouped(labels: Labels, of: list[int]) -> Labels:
    """The same with the images of a file as a group, where they have none.

    Where all images are of one file they are no group: nothing would be left to tell them from.
    """
    several = {i for i, n in Counter(of).items() if n > 1}
    if not several or len(set(of)) == 1:
        return labels
    first = int(labels.group.max()) + 1
    number = {i: first + k for k, i in enumerate(sorted(several))}
    own = torch.tensor([number.get(i, MISSING) for i in of])
    return replace(labels, group=torch.where(labels.group == MISSING, own, labels.group))


def _may_be_tiff(name: str) -> bool:
    suffix = PurePath(name).suffix.lower()
    return suffix in (".tif", ".tiff") or suffix not in SUFFIXES


def _listed(source: Source, i: int) -> list[tuple[tiff.Page, ...]] | str | None:
    """The images in a file of several pages, or why they cannot be listed; None where it is one, or no TIFF."""
    try:
        with source.stream(i) as file:
            if file.read(4) not in tiff.MARKS:
                return None
            return tiff.images(file)
    except ValueError as error:
        return str(error)
    except OSError:  # the decoder will say it
        return None


def _of_files(labels: Labels, of: list[int]) -> Labels:
    return Labels(
        label=labels.label[of],
        classes=labels.classes,
        group=labels.group[of],
        split=[labels.split[i] for i in of],
        notes=labels.notes,
        attribute=labels.attribute[of],
    )


def _notes(names: list[str], several: dict[int, list[tuple[tiff.Page, ...]]]) -> list[str]:
    """Notes on files of separate pages, and on files of pages that are channels."""
    frames = {i: pages for i, pages in several.items() if len(pages) > 1 == len(pages[0])}
    joined = {i: pages for i, pages in several.items() if len(pages[0]) > 1}
    notes = []
    if frames:
        listed = some([f"{names[i]!r}: {len(pages)}" for i, pages in frames.items()])
        group = ", and those of a file are one group" if len(names) > 1 else ""
        notes.append(
            f"{_files(len(frames))} several pages ({listed}): each is an image of its own{group}. Where pages are "
            "the channels of one image, save it as a .npy array, C x H x W."
        )
    if joined:
        listed = some([f"{names[i]!r}: {len(p)} of {len(p[0])} channels" for i, p in joined.items()])
        notes.append(f"{_files(len(joined))} a page for each channel, by the description in it ({listed}).")
    return notes


def _files(n: int) -> str:
    return "1 file has" if n == 1 else f"{n} files have"
