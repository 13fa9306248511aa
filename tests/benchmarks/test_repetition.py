from __future__ import annotations

from benchmarks.repetition import code_lines, repeated_lines

SOURCE = '''"""Of a module."""
import math
from os import (
    path,
)

# a comment

class A:
    """Of a class."""

    x: int  # beside code
    """Of a field."""

    def f(
        self,
    ) -> None:
        return "text"
'''


def test_only_code_counts_signatures_among_it() -> None:
    assert code_lines(SOURCE) == ["class A:", "x: int  # beside code", "def f(", "self,", ") -> None:", 'return "text"']


def test_runs_of_three_in_two_files_are_repeated_and_no_others() -> None:
    files = {"a": list("abcdexy"), "b": list("zbcdexyz"[:5]), "c": list("xyqxyq"), "d": list("mnomno")}
    assert repeated_lines(files) == {"a": [1, 2, 3, 4], "b": [1, 2, 3, 4], "c": [], "d": []}
