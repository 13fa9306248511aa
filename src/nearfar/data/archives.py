"""Where encoded items lie: in files, in parts of one file such as a .tar archive, or end to end in memory."""

from __future__ import annotations

import io
import stat
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

import numpy as np

from nearfar.data.labels import natural, some
from nearfar.errors import UserError

Stamp = tuple[int, ...] | None
"""Size, times and number of the file that an item lies in; None for what lies in memory, and stays as it is."""


def file_stamp(path: Path) -> Stamp:
    """Of a file. The time of its last change of any sort is among it, which no user can set back."""
    now = path.stat()
    return now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino


class Source(Protocol):
    """Encoded items, known by position."""

    def stream(self, row: int) -> BinaryIO:
        """An item to read the beginning of."""
        ...

    def read(self, row: int) -> bytes:
        """A whole item."""
        ...

    def stamp(self, row: int) -> Stamp:
        """What is another one once the item may have changed."""
        ...


@dataclass(slots=True)
class Files:
    """Items that are files."""

    paths: list[Path]

    def stream(self, row: int) -> BinaryIO:
        path = self.paths[row]
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            raise OSError("not a regular file")
        return path.open("rb")

    def read(self, row: int) -> bytes:
        with self.stream(row) as file:
            return file.read()

    def stamp(self, row: int) -> Stamp:
        return file_stamp(self.paths[row])


@dataclass(slots=True)
class Parts:
    """Items that lie in one file: item i is the `size[i]` bytes from `start[i]` on."""

    path: Path
    start: list[int]
    size: list[int]

    def stream(self, row: int) -> BinaryIO:
        return io.BytesIO(self.read(row))

    def read(self, row: int) -> bytes:
        with open(self.path, "rb") as file:  # opened anew, so that threads do not move each other's place
            file.seek(self.start[row])
            return file.read(self.size[row])

    def stamp(self, row: int) -> Stamp:
        return file_stamp(self.path)


@dataclass(slots=True)
class EndToEnd:
    """Items in one buffer: item i is data[offsets[i] : offsets[i + 1]]."""

    data: np.ndarray
    offsets: np.ndarray

    def stream(self, row: int) -> BinaryIO:
        return io.BytesIO(self.read(row))

    def read(self, row: int) -> bytes:
        return self.data[self.offsets[row] : self.offsets[row + 1]].tobytes()

    def stamp(self, row: int) -> Stamp:
        return None


def tar_parts(path: Path, wanted: Callable[[str], bool], noun: str) -> tuple[Parts, list[str], list[str]]:
    """The wanted members of an archive that is not compressed, their names in natural order, and notes.

    wanted: of a name, whether it is one.  noun: what they are called in messages, with "s" for several.
    Of members with one name the last counts, as when unpacking.
    Raises ValueError where the archive is compressed, damaged, or without wanted members.
    """
    with open(path, "rb") as file:
        if file.read(2) == b"\x1f\x8b" or path.suffix.lower() in (".gz", ".tgz", ".bz2", ".xz", ".zst"):
            raise UserError(
                f"'{path}' is compressed: each {noun} would have to be read from its start. Unpack it, or keep it as "
                "a plain .tar."
            )
    try:
        with tarfile.open(path, "r:") as tar:
            members = {str(PurePosixPath(m.name)): (m.offset_data, m.size) for m in tar if m.isreg() and not m.sparse}
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(f"'{path}' cannot be read as a .tar archive ({error}).") from error
    hidden = {name for name in members if any(part.startswith(".") for part in PurePosixPath(name).parts)}
    shown = sorted(members.keys() - hidden, key=natural)
    names = [name for name in shown if wanted(name)]
    others = [name for name in shown if not wanted(name)]
    if not names:
        raise UserError(f"'{path}' {nothing_wanted(others, noun)}.")
    parts = Parts(path, *map(list, zip(*(members[name] for name in names), strict=True)))
    return parts, names, ignored(others, noun)


def nothing_wanted(others: list[str], noun: str) -> str:
    """What is wrong with a folder or archive that holds only these other files."""
    count = "1 other file" if len(others) == 1 else f"{len(others)} other files"
    return f"holds no {noun}s, only {count} ({some(others)})" if others else "is empty"


def ignored(others: list[str], noun: str) -> list[str]:
    """The note on files that lie beside the wanted ones: one, or none where there are no such files."""
    if not others:
        return []
    count = f"1 file that is no {noun}" if len(others) == 1 else f"{len(others)} files that are no {noun}s"
    return [f"Ignored {count} ({some(others)})."]
