"""The one class of errors that a user can mend. Each is also the built-in error that Python's own code would raise.

The command line prints a `UserError` as one sentence. Whatever else is raised is a bug.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping
from itertools import islice
from pathlib import Path


def printable(text: str, keep: str = "") -> str:
    """A text of which nothing is a command to a terminal: what is not printable is shown as an escape, such as \\x1b.

    keep: characters that stay, such as line breaks.
    """

    def shown(character: str) -> bool:
        return character.isprintable() or character in keep or unicodedata.category(character) == "Zs"

    if text.isprintable():
        return text
    return "".join(c if shown(c) else c.encode("unicode_escape").decode() for c in text)


def counted(n: int, noun: str) -> str:
    """How many, as one says it: 1 image, 2 images, 1 class.  noun: in the plural."""
    one = {
        "classes": "class",
        "categories": "category",
        "copies": "copy",
        "batches": "batch",
        "processes": "process",
        "boxes": "box",
    }
    return f"{n:,} {one.get(noun, noun.removesuffix('s')) if n == 1 else noun}"


class UserError(ValueError):
    """Something that was given is wrong: the message quotes it and names the remedy."""


class NotFound(UserError, FileNotFoundError):
    """There is nothing where a path points."""


class Lost(NotFound):
    """Samples that could be read when the data were opened, and cannot be now: gone, cut off, or other bytes.

    at: by position among those that were asked for, each one's name and why it cannot be read.
    """

    def __init__(self, at: Mapping[int, tuple[str, str]]) -> None:
        self.at = dict(at)
        lost = f"{counted(len(at), 'samples')} can be read no more: {listed(at.values())}"
        super().__init__(f"{lost}. Put back what was there, or open the data again")


def listed(lost: Collection[tuple[str, str]]) -> str:
    """Names of lost samples with the reason, three at most."""
    shown = [f"{name!r} ({why})" for name, why in islice(lost, 3)]
    return ", ".join([*shown, "..."] if len(lost) > 3 else shown)


class AlreadyThere(UserError, FileExistsError):
    """Something is where a new file or directory should be."""


class WrongType(UserError, TypeError):
    """What was given is of another type."""


class NotInstalled(UserError, ModuleNotFoundError):
    """An optional package is missing: the message names the extra that brings it."""


_NO_MEMORY = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "bad_alloc",
    "ALLOC_FAILED",
    "can't start new thread",
    "failed to map segment",
)
"""What messages of torch, CUDA and the system say where memory was asked for in vain."""


def out_of_memory(error: BaseException) -> str | None:
    """A sentence that names what to lower, where an error says that memory was asked for in vain; else None.

    It is asked before a `UserError` is printed too: what failed for want of memory may have been taken for wrong, or
    have failed once more while it was cleaned up.
    """
    text = str(error).strip()
    known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    told = isinstance(error, RuntimeError | OSError | ImportError) and any(
        words.lower() in text.lower() for words in _NO_MEMORY
    )
    if isinstance(error, UserError) or not (known or told):
        before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        return None if before is None else out_of_memory(before)
    gpu = type(error).__name__ == "OutOfMemoryError" or "cuda" in text.lower() or "cudnn" in text.lower()
    (first, *_) = text.splitlines() or [""]
    return (
        f"out of memory{' on the GPU' if gpu else ''}{f' ({first})' if first else ''}. Lower what is held at a time: "
        "--micro-batch trains the same batch in parts, --batch makes it smaller, and --size the views"
        + (
            "; or close what else uses the GPU"
            if gpu
            else "; or allow more, where `ulimit -v` or a container limits it"
        )
    )


class Damaged(UserError):
    """A file is not as it was written: the message names it, and what brings it back."""


class DiskFull(UserError, OSError):
    """A file could not be written; what was there before is whole."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.errno = number


class Elsewhere(UserError):
    """Another process of the same job failed, or this one did; why has been printed already."""


class Diverged(UserError, ArithmeticError):
    """The loss or a parameter is no longer a finite number."""

    def __init__(self, what: str, *, saved: Path | None, clip: float | None, precision: str) -> None:
        """what: was seen.  saved: the last finite checkpoint.  clip, precision: of the run, to name a remedy."""
        stays = f"; the last finite checkpoint is {str(saved)!r}" if saved else ""
        remedies = ["a lower --lr", "a smaller --clip" if clip else "--clip 1"]
        if precision != "float32":
            remedies.append("--precision float32" if precision == "bf16" else "--precision bf16 or float32")
        super().__init__(f"{what}{stays}. Start anew with {', or '.join(remedies)}")
