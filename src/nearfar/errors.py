"""The one class of errors that a user can mend. Each is also the built-in error that Python's own code would raise.

The command line prints a `UserError` as one sentence. Whatever else is raised is a bug.
"""

from __future__ import annotations

from pathlib import Path


class UserError(ValueError):
    """Something that was given is wrong: the message quotes it and names the remedy."""


class NotFound(UserError, FileNotFoundError):
    """There is nothing where a path points."""


class AlreadyThere(UserError, FileExistsError):
    """Something is where a new file or directory should be."""


class WrongType(UserError, TypeError):
    """What was given is of another type."""


class NotInstalled(UserError, ModuleNotFoundError):
    """An optional package is missing: the message names the extra that brings it."""


class DiskFull(UserError, OSError):
    """A file could not be written; what was there before is whole."""


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
