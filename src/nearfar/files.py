"""Files that are either whole or not there."""

from __future__ import annotations

import csv
import errno
import importlib.util
import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from nearfar.errors import DiskFull, NotFound, UserError


def replace(path: Path, write: Callable[[Path], object]) -> Path:
    """Make `path` by letting `write` fill a temporary file beside it, then put that in its place.

    A crash at any moment leaves the old file or the new one, never a part; an error leaves the old one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with room_for(path):
            write(temporary)
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)
    return path


def replace_text(path: Path, text: str) -> Path:
    """`replace` for a text."""
    return replace(
        path, lambda temporary: temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
    )


def replace_csv(path: Path, rows: Iterable[Sequence[object]]) -> Path:
    """`replace` for a table, of which the first row names the columns. Text is written as `cell_of` says."""

    def fill(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            for row in rows:
                line = io.StringIO(newline="")
                csv.writer(line).writerow([cell_of(cell) for cell in row])  # only so does it quote both line breaks
                file.write(line.getvalue().removesuffix("\r\n") + "\n")

    return replace(path, fill)


FORMULA = ("=", "+", "-", "@", "'")
"""How text begins that a spreadsheet takes as a formula, or, of the last, hides the beginning of."""


def cell_of(value: object) -> object:
    """A cell as it is written: text that begins as in `FORMULA` or with white space has an apostrophe before it, so
    that a spreadsheet shows it and does not compute it. Numbers, in text or not, stay as they are.

    `nearfar.data.csv` takes the apostrophe away.
    """
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        return value
    return f"'{value}" if value.startswith(FORMULA) or value[:1].isspace() else value


_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def name_text(name: str) -> str:
    """A file's name as text that can be written anywhere: of a name that is not UTF-8 the other bytes as \\xe9."""
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a character, which names can hold where they are no bytes
        return name.encode("utf-8", "backslashreplace").decode()


def insist_text(path: str, flag: str) -> None:
    """Raise ValueError where a path is not UTF-8: several libraries cannot write there."""
    if name_text(path) != path:
        raise UserError(f"{flag} '{name_text(path)}' is not UTF-8: choose a name that is")


def is_not_utf8(name: str) -> bool:
    """Whether `name_text` had to write bytes so."""
    return re.search(r"\\x[89a-f][0-9a-f]", name) is not None


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Within: the error of a full disk names the file and the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFull(
            error.errno,
            f"the disk is full: {str(path)!r} could not be written, and what was there before is whole. Free some "
            "space and try again (a training run: with --resume)",
        ) from error


def run_file(path: Path, purpose: str) -> ModuleType:
    """Run a .py file of the user's own, and give what it defines. Raises FileNotFoundError where there is none."""
    if not path.is_file():
        raise NotFound(f"there is no {purpose} file {str(path)!r}")
    spec = importlib.util.spec_from_file_location(f"nearfar_user_{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


def load_function(given: str, flag: str) -> Callable[..., Any]:
    """A function of the user's own, named FILE.py:FUNCTION; the file is run.

    Raises FileNotFoundError where there is no such file, ValueError where it holds no such function.
    """
    file, _, name = given.partition(".py:")
    if not name:
        raise UserError(f"{flag} {given!r}: a function in a file is named FILE.py:FUNCTION")
    function = getattr(run_file(Path(file + ".py").resolve(), flag), name, None)
    if not callable(function):
        raise UserError(f"{flag} {given!r}: {file}.py has no function {name!r}")
    return function


def is_leftover(path: Path) -> bool:
    """Whether a file is a temporary one: of a process that was killed while it wrote, if none is writing now."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def clear_leftovers(folder: Path) -> None:
    """Remove what killed processes left."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
