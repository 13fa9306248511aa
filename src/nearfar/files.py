"""Files that are either whole or not there."""

from __future__ import annotations

import csv
import errno
import glob
import importlib.util
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from nearfar.errors import DiskFull, NotFound, UserError

_TEMPORARY = re.compile(r"\..+\.(\d+)\.tmp", re.DOTALL)
"""What a temporary file or directory is called; the number is of the process."""


def replace(path: Path, write: Callable[[Path], object]) -> Path:
    """Make `path` by letting `write` fill a temporary file beside it, then put that in its place.

    A crash at any moment leaves the old file or the new one, never a part; an error leaves the old one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_dead(path)
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
    return replace(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def replace_csv(path: Path, rows: Iterable[Sequence[object]]) -> Path:
    """`replace` for a table, of which the first row names the columns."""

    def fill(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)

    return replace(path, fill)


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


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A temporary directory in `folder`, for files that go to their places together; gone afterwards."""
    _clear_dead(folder / "export")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export.", suffix=f".{os.getpid()}.tmp") as name:
        yield Path(name)


def is_leftover(path: Path) -> bool:
    """Whether a file or directory is a temporary one: of a process that was killed while it wrote, if none is writing
    now."""
    return _TEMPORARY.fullmatch(path.name) is not None


def leftovers(folder: Path) -> Iterator[Path]:
    """The temporary files and directories in a run directory."""
    for part in (folder, *(folder / name for name in ("checkpoints", "results", "export"))):
        yield from (path for path in part.glob(".*.tmp") if is_leftover(path))


def clear_leftovers(folder: Path) -> None:
    """Remove what killed processes left in a run directory. Nobody may be writing there."""
    for path in [*leftovers(folder)]:
        _remove(path)


def _clear_dead(path: Path) -> None:
    """Remove what killed processes left of writing `path`, in a folder that may hold files of anyone's."""
    for other in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        found = _TEMPORARY.fullmatch(other.name)
        if found is not None and not _lives(int(found[1])):
            _remove(other)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    """Whether there is a process of that number on this machine; True where that cannot be known."""
    if os.name == "nt":  # os.kill would end it there
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
