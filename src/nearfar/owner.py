"""One owner of a directory: whoever writes into it holds its lock, which the system takes back when the process dies.

The lock is one of the operating system (flock, on Windows that of msvcrt) on the file `.lock` in the directory, which
says who holds it and is gone when nobody does; one that a killed process left is taken over. On a network file system
it holds across machines where the system's own locks do (NFS with its lock service, Lustre with -o flock, SMB); where
there are none at all, that is said by a warning, and nothing is locked.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from nearfar.errors import AlreadyThere, UserError
from nearfar.files import clear_leftovers, is_leftover, leftovers, lives

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK = ".lock"
BUSY = (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)
"""What the system answers where another holds a lock; any other error says that there are no locks."""

_held: ContextVar[frozenset[Path]] = ContextVar("held", default=frozenset())


class Busy(UserError):
    """Another process is at work in a directory."""


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Within: this process alone writes into the directory `folder`, which is made where there is none.

    Within another one for the same directory it does nothing. Raises Busy, at once, where another process or thread
    is at work there.
    """
    place = folder.resolve()
    if place in _held.get():
        yield
        return
    made, path = not folder.exists(), place / LOCK
    handle = _take(path, folder)
    before = _held.set(_held.get() | {place})
    try:
        yield
    finally:
        _held.reset(before)
        if sys.platform != "win32":  # while it is held, or it could be the next owner's that is removed
            path.unlink(missing_ok=True)
        os.close(handle)
        with contextlib.suppress(OSError):  # rmdir spares a directory that holds anything
            if sys.platform == "win32":
                path.unlink(missing_ok=True)
            if made:
                place.rmdir()


def mark(folder: Path) -> str:
    """What the lock of a directory says of its owner; "" where there is none."""
    try:
        return (folder / LOCK).read_text(encoding="utf-8")
    except OSError:
        return ""


def contents(folder: Path) -> list[Path]:
    """What a directory holds, besides its lock and what killed processes left."""
    if not folder.exists():
        return []
    return sorted(path for path in folder.iterdir() if path.name != LOCK and not is_leftover(path))


def tidy(folder: Path) -> None:
    """Remove what killed processes left in a directory, unless someone is at work there."""
    if folder.resolve() in _held.get() or is_at_work(folder):
        return
    if (folder / LOCK).exists() or any(leftovers(folder)):
        with contextlib.suppress(UserError, OSError), owned(folder):
            clear_leftovers(folder)


def is_at_work(folder: Path) -> bool:
    """Whether the lock names a process that may live: the file says it also where the system has no locks."""
    number, host, *_ = [*mark(folder).split("\n"), "", ""]
    return number.isdecimal() and (host != platform.node() or lives(int(number)))


class _HasPath(Protocol):
    path: Path


S = TypeVar("S", bound=_HasPath)
P = ParamSpec("P")
R = TypeVar("R")


def writes(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """A method that owns the directory `self.path` while it runs."""

    @functools.wraps(method)
    def _inside(self: S, /, *args: P.args, **keywords: P.kwargs) -> R:
        with owned(self.path):
            return method(self, *args, **keywords)

    return _inside


def _take(path: Path, folder: Path) -> int:
    """The lock file, open and locked. folder: as the user named it."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # its last owner has just removed the directory
            continue
        except FileExistsError as error:
            raise AlreadyThere(f"{str(folder)!r} is a file, not a directory: name another") from error
        except OSError as error:
            raise UserError(f"{str(folder)!r} cannot be written into: {error.strerror}") from error
        try:
            if sys.platform == "win32":
                os.lseek(handle, 1 << 30, os.SEEK_SET)  # far behind the text, which others must be able to read
                msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
                os.lseek(handle, 0, os.SEEK_SET)
            else:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in BUSY:
                os.close(handle)
                raise Busy(_who(folder)) from None
            warnings.warn(
                f"{str(folder)!r} is on a file system without locks ({error.strerror}): nothing keeps two processes "
                "from writing there at once",
                stacklevel=4,
            )
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(path)):  # and not one that its last owner has just removed
                os.truncate(handle, 0)
                words = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
                os.write(handle, f"{os.getpid()}\n{platform.node()}\n{words}\n".encode(errors="replace"))
                return handle
        os.close(handle)


def _who(folder: Path) -> str:
    text, waits = mark(folder), 0
    while not text and waits < 20:  # it may have got the lock this very moment, and not yet said who it is
        time.sleep(0.01)
        text, waits = mark(folder), waits + 1
    number, host, words = [*text.split("\n", 2), "", ""][:3]
    where = f" on {host}" if host != platform.node() else ""
    who = f"process {number}{where} ({words.strip()})" if number else "another process"
    return (
        f"{who} is at work in {str(folder)!r}, and two at once would mix their files: wait until it has ended, or name "
        "another directory"
    )
