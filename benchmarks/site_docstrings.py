"""Docstrings as the pages of the API show them: an extension of Griffe, named in mkdocs.yml.

Ours are plain text: a line `name: what it is` begins an argument, `N x D` is a shape, and nothing is Markdown.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

from benchmarks.pages import prose

ARGUMENT = re.compile(r"^((?:\*{0,2}[a-z]\w*)(?:, \*{0,2}[a-z]\w*)*): ")
SECTIONS = ("Args:", "Note:", "Returns:", "Raises:", "Attributes:", "Example:")


def shown(text: str) -> str:
    """A docstring in Markdown: each argument an item, formulas as they stand, signs as signs."""
    lines: list[str] = []
    formula = args = False
    for line in text.split("\n"):
        if line.strip() in SECTIONS:
            args, formula = True, False
            lines.append(line)
        elif args:
            lines.append(prose(line))
        elif line.startswith("    ") and (formula or not lines or not lines[-1].strip()):
            formula = True
            lines.append(line)
        elif not line.strip():
            lines.append("")
        elif lines and (found := ARGUMENT.match(line)):
            item = f"- `{found[1]}`: {prose(line[found.end() :].strip())}"
            lines += ([] if lines and lines[-1].startswith(("- ", "  ")) else [""]) + [item]
            formula = False
        else:
            formula = False
            item = bool(lines) and lines[-1].startswith(("- `", "  "))
            goes_on = item and not line[0].isupper()  # a sentence of its own begins a paragraph
            lines += ([""] if item and not goes_on else []) + [("  " if goes_on else "") + prose(line.strip())]
    return "\n".join(lines)


class Plain(griffe.Extension):
    """Rewrites every docstring that is found."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = shown(obj.docstring.value)
