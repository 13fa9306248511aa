"""How the command line prints: nothing that the terminal would take as a command, whatever a file is called."""

from __future__ import annotations

import builtins
import io
import sys
from typing import TextIO

from nearfar.errors import printable


def print(*words: object, file: TextIO | None = None) -> None:
    """In the place of the built-in: control characters are shown as escapes, but for line breaks and tabs."""
    builtins.print(*(printable(str(word), keep="\n\t") for word in words), file=file)


def allow_every_name() -> None:
    """Let what the terminal's encoding lacks be printed as escapes, where it would end in a UnicodeEncodeError."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
