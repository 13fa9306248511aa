"""Errors of the library that are more than a wrong value: what a caller may want to catch by name."""

from __future__ import annotations

from pathlib import Path


class Diverged(ArithmeticError):
    """The loss or a parameter is no longer a finite number."""

    def __init__(self, what: str, *, saved: Path | None, clip: float | None, precision: str) -> None:
        """what: was seen.  saved: the last finite checkpoint.  clip, precision: of the run, to name a remedy."""
        stays = f"; the last finite checkpoint is {str(saved)!r}" if saved else ""
        remedies = ["a lower --lr", "a smaller --clip" if clip else "--clip 1"]
        if precision != "float32":
            remedies.append("--precision float32" if precision == "bf16" else "--precision bf16 or float32")
        super().__init__(f"{what}{stays}. Start anew with {', or '.join(remedies)}")
