"""Small pieces of HTML. Whatever comes from a user's files passes through `escape` here, and nowhere else."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

ENDS = ("value", "low", "high")
DATA_URI = re.compile(r"data:image/(png|jpeg|webp);base64,[A-Za-z0-9+/=]+")


def text(value: object) -> str:
    """Any value as text that is safe in HTML, in attributes too."""
    return escape(str(value))


def prose(sentence: object) -> str:
    """A sentence of ours: safe like `text`, and what stands in backticks is set as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", text(sentence))


def section(name: str, title: str, lead: str, *body: str) -> str:
    """A part of the page: a heading, a sentence that says what one sees, its content. Without content: nothing."""
    content = "\n".join(part for part in body if part)
    return (
        f'<section id="{name}">\n<h2>{text(title)}</h2>\n<p class="lead">{prose(lead)}</p>\n{content}\n</section>'
        if content
        else ""
    )


def missing(why: str) -> str:
    """The sentence that stands where a part is absent."""
    return f'<p class="missing">{prose(why)}</p>'


def facts(pairs: Iterable[tuple[str, object]]) -> str:
    """Names and values, side by side; a value that is None is left out."""
    inner = "".join(f"<div><dt>{text(k)}</dt><dd>{text(v)}</dd></div>" for k, v in pairs if v is not None)
    return f'<dl class="facts">{inner}</dl>' if inner else ""


def card(title: str, value: str, detail: str) -> str:
    """One main number."""
    inner = f'<h3>{text(title)}</h3><p class="value">{text(value)}</p><p class="detail">{text(detail)}</p>'
    return f'<div class="card">{inner}</div>'


def plain_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of text."""
    top = "".join(f'<th scope="col">{text(cell)}</th>' for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def flat(tree: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, str]]:
    """The leaves of nested mappings, with dotted names."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{above}{key}.")
        else:
            yield (
                f"{above}{key}",
                value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str),
            )


def decimals(values: Iterable[float | None], column: str = "") -> int:
    """How many decimals a column of numbers needs: all get the same, so that they stand under one another."""
    known = [abs(v) for v in values if v is not None]
    if all(v == int(v) for v in known):
        return 0
    return 1 if max(known) >= 10 or "%" in column else 3


def number(value: float | None, places: int = 3) -> str:
    """A number as one prints it: thousands apart, a true minus sign, a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:,.{places}f}".replace("-", "−")


def interval(cell: Mapping[str, float | None], places: int) -> str:
    """The 95 % interval of a value, or nothing."""
    low, high = cell.get("low"), cell.get("high")
    return "" if low is None or high is None else f"{number(low, places)} to {number(high, places)}"


def results_table(table: Mapping[str, Any], main: Mapping[str, Any] | None) -> str:
    """Rows against columns; each value with its 95 % interval in a column of its own, so that digits align."""
    places = {c: decimals([v for key in ENDS for v in _of(table, c, key)], c) for c in table["columns"]}
    ranged = {c: any(v is not None for v in _of(table, c, "low")) for c in table["columns"]}
    head = "".join(f'<th scope="col" class="number"{" colspan=2" * ranged[c]}>{text(c)}</th>' for c in table["columns"])
    body = []
    for row in table["rows"]:
        cells = f'<th scope="row">{text(row["name"])}</th>'
        for c in table["columns"]:
            cell = row["values"].get(c, {})
            cells += f'<td class="number">{number(cell.get("value"), places[c])}</td>'
            cells += f'<td class="interval">{interval(cell, places[c])}</td>' * ranged[c]
        body.append(f"<tr{' class=main' * (row is main)}>{cells}</tr>")
    top = f'<thead><tr><th scope="col"><span class="hidden">name</span></th>{head}</tr></thead>'
    return f'<div class="scroll" tabindex="0"><table class="numbers">{top}<tbody>{"".join(body)}</tbody></table></div>'


def dots(table: Mapping[str, Any], main: Mapping[str, Any] | None) -> str:
    """For each column, a line for each row: a dot for the value, a bar for its 95 % interval."""
    return '<div class="panels">' + "".join(_panel(table, column, main) for column in table["columns"]) + "</div>"


def _panel(table: Mapping[str, Any], column: str, main: Mapping[str, Any] | None) -> str:
    ends = [v for key in ENDS for v in _of(table, column, key) if v is not None]
    bottom, top = (min(ends), max(ends)) if ends else (0, 0)
    if bottom == top:
        return ""
    low, high = bottom - 0.06 * (top - bottom), top + 0.06 * (top - bottom)

    def at(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    lines = []
    for row in table["rows"]:
        cell = row["values"].get(column, {})
        if cell.get("value") is None:
            continue
        bar = ""
        if cell["low"] is not None and cell["high"] is not None:
            bar = f'<i style="left:{at(cell["low"])}%;right:{round(100 - at(cell["high"]), 2)}%"></i>'
        dot = f'<b style="left:{at(cell["value"])}%"></b>'
        lines.append(
            f'<div class="line{" main" * (row is main)}"><span>{text(row["name"])}</span><div>{bar}{dot}</div></div>'
        )
    places = decimals(ends, column)
    ends_shown = f"<u>{number(low, places)}</u><u>{number(high, places)}</u>"
    scale = f'<div class="line scale"><span></span><div>{ends_shown}</div></div>'
    inner = f"<figcaption>{text(column)}</figcaption>{''.join(lines)}{scale}"
    return f'<figure class="dots" aria-hidden="true">{inner}</figure>'


def image(uri: object, name: object) -> str:
    """A thumbnail, if it is one: only images that are inside the file are ever shown."""
    source = uri if isinstance(uri, str) and DATA_URI.fullmatch(uri) else "data:,"
    return f'<img src="{source}" alt="{text(name)}" title="{text(name)}">'


def agreement(near: Mapping[str, Any], query: Mapping[str, Any]) -> str:
    """Whether two samples have the same label: "same", "other", or "" where one has none."""
    if near.get("label") is None or query.get("label") is None:
        return ""
    return "same" if near["label"] == query["label"] else "other"


def protocol(result: Mapping[str, Any]) -> str:
    """How a result was measured, in one small line."""
    told = flat({name: _short(value) for name, value in (result.get("protocol") or {}).items()})
    said = " · ".join(f"{name} {value}" for name, value in told if value not in ("", "[]"))
    return f'<p class="protocol">Protocol: {text(said)}</p>' if said else ""


def duration(seconds: float) -> str:
    """Seconds as one says them: "41 s", "3 min 12 s", "2 h 5 min"."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def embedded_json(value: object) -> str:
    """JSON that may stand inside <script>: no name in it can end the element, nor open a comment."""
    written = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return written.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _short(value: Any) -> Any:
    """A number with as many digits as one reads; of lists and mappings, each."""
    if isinstance(value, Mapping):
        return {name: _short(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_short(inner) for inner in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _of(table: Mapping[str, Any], column: str, key: str) -> list[float | None]:
    return [row["values"].get(column, {}).get(key) for row in table["rows"]]
