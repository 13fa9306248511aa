"""Faults put in on purpose, by the hundred where that is cheap: `python -m benchmarks.faults`.

Each kind of fault is a public function of a module of this folder, `kind(faults, folder, random, many)`: it injects
`many` faults (or a few where each costs seconds), and tells `faults` what came of each. Its docstring's first line is
what the table calls it; what must come, if it is more than "the right answer or a sentence", follows in the docstring.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

from nearfar.cli import main


@dataclass(slots=True)
class Faults:
    """What came of the faults of one kind. wrong: a description of each that did not end as it must."""

    injected: int = 0
    survived: int = 0
    wrong: list[str] = field(default_factory=list)

    def tell(self, well: bool, what: str) -> None:
        """Count one fault. well: whether it ended as it must.  what: the fault and what came, if it did not."""
        self.injected += 1
        self.survived += well
        if not well:
            self.wrong.append(what)


@dataclass(frozen=True, slots=True)
class Said:
    """What came of a command: its exit status and everything that it printed."""

    status: int
    text: str

    @property
    def refused(self) -> bool:
        """Whether it ended with a sentence for the user: neither a traceback nor a report of a bug."""
        return self.status == 2 and "Traceback" not in self.text and "bug" not in self.text

    @property
    def sound(self) -> bool:
        """Whether it did its work, or refused it with a sentence."""
        return self.status == 0 or self.refused


def command(words: Sequence[object]) -> Said:
    """`nearfar WORDS` in this process."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            status = main([str(word) for word in words])
        except SystemExit as ended:  # of --help and unknown flags
            status = ended.code if isinstance(ended.code, int) else 1
    return Said(status, out.getvalue())
