"""Files of several pictures: each page of a TIFF, or each frame, is an image, known by its file's name and a number."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any, BinaryIO, Literal

import torch

from nearfar.batch import MISSING
from nearfar.data.archives import EndToEnd, Files, Parts, Source, Stamp
from nearfar.data.digests import stream_digest
from nearfar.data.labels import Labels, some
from nearfar.errors import UserError
from nearfar.modalities.image import tiff
from nearfar.modalities.image.decode import Frame, frames_in
from nearfar.modalities.image.held import Column
from nearfar.modalities.image.sources import SUFFIXES, Opened

Part = tuple[tiff.Page, ...] | int | str | None
"""An image in a file: its pages; or the number of its frame; or why it cannot be had; or None, the file as it is."""


@dataclass(slots=True)
class Pages:
    """Encoded images, of which some are pages of one file: image i is `parts[i]` of file `of[i]` of `source`."""

    source: Source
    of: list[int]
    parts: list[Part]
    known: dict[int, tuple[Stamp, str]] = field(default_factory=dict)  # digests of whole files
    lock: Any = field(default_factory=threading.Lock)

    def stream(self, row: int) -> BinaryIO | tiff.PageImage | Frame:
        part = self.parts[row]
        return self.source.stream(self.of[row]) if part is None else self._part(row, part)

    def read(self, row: int) -> bytes | tiff.PageImage | Frame:
        part = self.parts[row]
        return self.source.read(self.of[row]) if part is None else self._part(row, part)

    def stamp(self, row: int) -> Stamp:
        return self.source.stamp(self.of[row])

    def _part(self, row: int, part: tuple[tiff.Page, ...] | int | str) -> tiff.PageImage | Frame:
        if isinstance(part, str):
            raise UserError(part)

        def whole() -> str:
            return self._file_digest(self.of[row])

        if isinstance(part, int):
            return Frame(lambda: self.source.read(self.of[row]), part, whole)
        return tiff.PageImage(lambda: self.source.stream(self.of[row]), part, whole)

    def _file_digest(self, file: int) -> str:
        """Of a whole file: taken once, however many pages it has, and again when the file may have changed."""
        with self.lock:
            stamp = self.source.stamp(file)
            known = self.known.get(file)
            if known is None or known[0] != stamp:
                with self.source.stream(file) as stream:
                    known = self.known[file] = stamp, stream_digest(stream)
        return known[1]


def apart(opened: Opened, workers: int, frames: Literal["auto", "all", "first"] = "auto") -> tuple[Opened, list[int]]:
    """The same with each page of a TIFF file as an image, named FILE#1 and so on; and the file of each image.

    frames: "all" takes the frames of other files apart too; "first" leaves the first page of each TIFF file alone.
    """
    source, names = opened.source, opened.names
    each = list(range(len(names)))
    if not isinstance(source, Files | Parts | EndToEnd | Column):
        return opened, each
    files = [i for i, name in enumerate(names) if frames == "all" or _may_be_tiff(name)]
    with ThreadPoolExecutor(max(1, workers)) as pool:
        listed = dict(zip(files, pool.map(lambda i: _listed(source, i, frames), files), strict=True))
    several: dict[int, list[Part]] = {i: found for i, found in listed.items() if isinstance(found, list)}
    bad = {i: why for i, why in listed.items() if isinstance(why, str)}
    if not several and not bad:
        return opened, each
    notes = _notes(names, several, frames)
    of, parts, called = [], [], []
    for i, name in enumerate(names):
        here = several.get(i, [bad.get(i)])[: 1 if frames == "first" else None]
        of += [i] * len(here)
        parts += here
        called += [name] if len(here) == 1 else [f"{name}#{k}" for k in range(1, len(here) + 1)]
    labels = None if opened.labels is None else _of_files(opened.labels, of)
    return replace(
        opened, source=Pages(source, of, parts), names=called, labels=labels, notes=[*opened.notes, *notes]
    ), of


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


def _listed(source: Source, i: int, frames: str) -> list[Part] | str | None:
    """The images in a file of several, or why they cannot be listed; None where it is one, or no image."""
    try:
        with source.stream(i) as file:
            mark = file.read(4)
            file.seek(0)
            if mark in tiff.MARKS:
                pages = tiff.images(file)
                return None if pages is None else [*pages]
            count = frames_in(file) if frames == "all" else 1
            return [*range(count)] if count > 1 else None
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


def _notes(names: list[str], several: dict[int, list[Part]], frames: str) -> list[str]:
    """Notes on files of separate pages or frames, and on files of pages that are channels."""
    alone = {i: parts for i, parts in several.items() if len(parts) > 1 and _channels(parts) == 1}
    joined = {i: parts for i, parts in several.items() if _channels(parts) > 1}
    notes = []
    if alone:
        listed = some([f"{names[i]!r}: {len(parts)}" for i, parts in alone.items()])
        group = ", and those of a file are one group" if len(names) > 1 else ""
        said = f"each is an image of its own{group}" if frames != "first" else "only the first of each is read"
        pages = any(isinstance(parts[0], tuple) for parts in alone.values())
        notes.append(
            f"{_files(len(alone))} several {'pages' if pages else 'frames'} ({listed}): {said}."
            + (" Where pages are the channels of one image, save it as a .npy array, C x H x W." if pages else "")
        )
    if joined:
        listed = some([f"{names[i]!r}: {len(p)} of {_channels(p)} channels" for i, p in joined.items()])
        notes.append(f"{_files(len(joined))} a page for each channel, by the description in it ({listed}).")
    return notes


def _channels(parts: list[Part]) -> int:
    """The pages of each image in a file."""
    return len(parts[0]) if isinstance(parts[0], tuple) else 1


def _files(n: int) -> str:
    return "1 file has" if n == 1 else f"{n} files have"
