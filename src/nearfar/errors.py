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


class Damaged(UserError):
    """A file is not as it was written: the message names it, and what brings it back."""


class DiskFull(UserError, OSError):
    """A file could not be written; what was there before is whole."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.errno = number


class Diverged(UserError, ArithmeticError):
    """The loss or a parameter is no longer a finite number."""

    def __init__(self, what: str, *, saved: Path | None, clip: float | None, precision: str) -> None:
        """what: was seen.  saved: the last finite checkpoint.  clip, precision: of the run, to name a remedy."""
        stays = f"; the last finite checkpoint is {str(saved)!r}" if saved else ""
        remedies = ["a lower --lr", "a smaller --clip" if clip else "--clip 1"]
        if precision != "float32":
            remedies.append("--precision float32" if precision == "bf16" else "--precision bf16 or float32")
        super().__init__(f"{what}{stays}. Start anew with {', or '.join(remedies)}")


def out_of_memory(error: BaseException) -> str | None:
    """A sentence that says what to lower, of an error that means that memory ran out; None of any other.

    Errors of torch and NumPy are known by their names and words, so that neither needs to be imported.
    """
    kinds = {kind.__name__ for kind in type(error).__mro__}
    words = str(error).lower()
    if not kinds & {"MemoryError", "OutOfMemoryError"} and not (
        "RuntimeError" in kinds and ("not enough memory" in words or "can't allocate memory" in words)
    ):
        return None
    where = "the GPU" if "OutOfMemoryError" in kinds else "this machine"
    return f"the memory of {where} ran out. Lower --micro-batch, --batch or --size, or take a smaller --encoder"
