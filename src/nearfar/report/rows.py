"""Rows of a table as a page shows them: a line each, with what differs from the first line of its group in color."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from nearfar.report import parts

NEIGHBORS_LEAD = (
    "Some rows, and under each those the encoder finds most alike, the nearest first; what differs from the first line "
    "stands in color. The number is the cosine similarity: 1 is the same direction, 0 unrelated."
)
COPIES_LEAD = (
    "Rows that say the same in every column. As negatives of each other copies are pushed apart from themselves; on "
    "both sides of a split they flatter the test. `nearfar doctor` lists them all."
)
OUTLIERS_LEAD = (
    "The rows that are least like any other to the encoder: slips, values that stand for none, or rare cases that "
    "deserve more samples. The number is the mean cosine similarity to the nearest neighbors."
)


class Line(NamedTuple):
    """One row. shown: its name, label and cells.  head: what stands before the label.  kind: query, same, other, or "".
    beside: the row that it is compared with, if any."""

    shown: Mapping[str, Any]
    head: str = ""
    kind: str = ""
    beside: Mapping[str, Any] | None = None


def neighbors(found: Mapping[str, Any]) -> str:
    """A table for each query: it, and what the encoder finds nearest."""
    tables = ""
    for query in found["queries"]:
        near = [
            Line(shown, parts.number(shown["similarity"], 2), parts.agreement(shown, query), query)
            for shown in query["neighbors"]
        ]
        tables += _table(found, [("", [Line(query, query["name"], "query"), *near])])
    return f'<div class="grid">{tables}</div>{_note(found)}'


def copies(found: Mapping[str, Any]) -> str:
    """One table, with a heading above each set."""
    groups = []
    for copied in found["sets"]:
        first, *others = copied["samples"]
        size, count = copied["size"], len(others) + 1
        said = f"{size:,} copies" + (f", {count} shown" if size > count else "")
        torn = ' <span class="torn">✗ labels differ</span>' if copied.get("torn") else ""
        kinds = [parts.agreement(shown, first) if torn else "" for shown in others]
        lines = [Line(first), *(Line(shown, "", kind, first) for shown, kind in zip(others, kinds, strict=True))]
        groups.append((parts.text(said) + torn, lines))
    return _table(found, groups) + _note(found) if groups else ""


def outliers(found: Mapping[str, Any]) -> str:
    """One table, the farthest first."""
    lines = [Line(shown, parts.number(shown["similarity"], 2)) for shown in found["samples"]]
    return _table(found, [("", lines)]) + _note(found) if lines else ""


def _table(found: Mapping[str, Any], groups: Sequence[tuple[str, Sequence[Line]]]) -> str:
    """Lines in groups, each under its heading (HTML, or ""), with the column names above; in a box that scrolls."""
    columns, numbers = found["columns"], found["numbers"]
    names = "".join(
        f'<th scope="col"{_number(c < numbers)}>{parts.text(name).replace("_", "_<wbr>")}</th>'
        for c, name in enumerate(columns)
    )
    top = f'<tr><th scope="col"><span class="hidden">sample</span></th>{names}<td></td></tr>'
    body = ""
    for heading, lines in groups:
        above = f'<tr class="group"><th colspan="{len(columns) + 2}">{heading}</th></tr>' if heading else ""
        body += f"<tbody>{above}{''.join(_line(line, numbers) for line in lines)}</tbody>"
    return f'<div class="scroll" tabindex="0"><table class="rows"><thead>{top}</thead>{body}</table></div>'


def _line(line: Line, numbers: int) -> str:
    shown, beside = line.shown, None if line.beside is None else line.beside["cells"]
    sign = {"same": "✓ ", "other": "✗ "}.get(line.kind, "")
    head = f"<b>{parts.text(line.head)}</b> " if line.head else ""
    label = "" if shown.get("label") is None else f"<span>{sign}{parts.text(shown['label'])}</span>"
    cells = ""
    for c, cell in enumerate(shown["cells"]):
        compared = "" if beside is None else "alike" if cell == beside[c] else "differs"
        kind = "number " * (c < numbers) + compared
        cells += f'<td class="{kind}" title="{parts.text(cell)}">{parts.text(cell) or "–"}</td>'
    name = parts.text(shown["name"])
    last = "" if line.kind == "query" else name
    first = f'<th scope="row" title="{name}">{head}{label}</th>'
    return f'<tr class="{line.kind}">{first}{cells}<td class="name">{last}</td></tr>'


def _number(is_one: bool) -> str:
    return ' class="number"' if is_one else ""


def _note(found: Mapping[str, Any]) -> str:
    shown, hidden = len(found["columns"]), found["hidden"]
    return f'<p class="protocol">{shown} of {shown + hidden} columns are shown.</p>' if hidden else ""
