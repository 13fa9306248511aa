"""A line plot on logarithmic axes, or a curve on plain ones, as an SVG file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from pathlib import Path

Series = dict[str, list[tuple[float, float]]]

WIDTH, HEIGHT = 720, 440
LEFT, RIGHT, MARGIN, TOP, BOTTOM = 70, 210, 50, 44, 48
"""RIGHT: room for names; MARGIN: where there are none."""
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7f6a00", "#56b4e9", "#555555")
DASHES = ("", "7 3", "2 3", "9 3 2 3", "12 4", "4 2", "1 4")


def loglog(title: str, across: str, up: str, series: Series) -> str:
    """An SVG of some named series of positive points, each named at its end. The first is drawn thicker."""
    points = [p for line in series.values() for p in line]
    if not points or min(min(p) for p in points) <= 0:
        raise ValueError(f"a logarithmic plot wants positive points, got {series}")
    columns = sorted({x for x, _ in points})
    low, high = (f(y for _, y in points) for f in (min, max))
    bottom, top = math.floor(math.log10(low)), max(math.ceil(math.log10(high)), math.floor(math.log10(low)) + 1)
    first, last = math.log(columns[0]), math.log(max(columns[-1], columns[0] * 2))

    def place(x: float, y: float) -> tuple[float, float]:
        h = LEFT + (math.log(x) - first) / (last - first) * (WIDTH - LEFT - RIGHT)
        v = HEIGHT - BOTTOM - (math.log10(y) - bottom) / (top - bottom) * (HEIGHT - TOP - BOTTOM)
        return round(h, 1), round(v, 1)

    parts = _begun(title, across, up)
    for power in range(bottom, top + 1):
        _, v = place(columns[0], 10.0**power)
        parts.append(f'<path d="M{LEFT} {v}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{v + 4}" text-anchor="end">{10.0**power:g}</text>')
    for x in columns:
        h, v = place(x, 10.0**bottom)
        parts.append(f'<text x="{h}" y="{v + 18}" text-anchor="middle">{x:g}</text>')
    ends = {name: place(*max(line))[1] for name, line in series.items() if line}
    labels = _apart(ends)
    for number, (name, line) in enumerate(series.items()):
        if not line:
            continue
        color, dash = COLORS[number % len(COLORS)], DASHES[number % len(DASHES)]
        places = [place(*p) for p in sorted(line)]
        path = " ".join(f"{h},{v}" for h, v in places)
        width = 3 if number == 0 else 1.6
        style = f'fill="none" stroke="{color}" stroke-width="{width}" stroke-dasharray="{dash}"'
        parts.append(f'<polyline points="{path}" {style}/>')
        parts += [f'<circle cx="{h}" cy="{v}" r="3" fill="{color}"/>' for h, v in places]
        parts.append(f'<text x="{WIDTH - RIGHT + 12}" y="{labels[name] + 4}" fill="{color}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def curve(title: str, across: str, up: str, points: dict[str, tuple[float, float, float, float]]) -> str:
    """An SVG of named points (x, y, and the interval of y) on plain axes, joined in the order of x."""
    if not points:
        raise ValueError("there are no points to be drawn")
    named = sorted((place, name) for name, place in points.items())
    low, high = (f(value for _, *of in points.values() for value in of) for f in (min, max))
    (first, last), (bottom, top) = (named[0][0][0], named[-1][0][0]), (math.floor(low), math.ceil(high))

    def place(x: float, y: float) -> tuple[float, float]:
        h = LEFT + 20 + (x - first) / max(last - first, 1e-9) * (WIDTH - LEFT - MARGIN - 40)
        v = HEIGHT - BOTTOM - (y - bottom) / max(top - bottom, 1) * (HEIGHT - TOP - BOTTOM)
        return round(h, 1), round(v, 1)

    parts = _begun(title, across, up, MARGIN)
    for level in range(bottom, top + 1):
        _, v = place(first, level)
        parts.append(f'<path d="M{LEFT} {v}H{WIDTH - MARGIN}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{v + 4}" text-anchor="end">{level}</text>')
    for half_unit in range(math.ceil(2 * first), math.floor(2 * last) + 1):
        h, v = place(half_unit / 2, bottom)
        parts.append(f'<text x="{h}" y="{v + 18}" text-anchor="middle">{half_unit / 2:g}</text>')
    line = " ".join("{},{}".format(*place(x, y)) for (x, y, *_), _ in named)
    parts.append(f'<polyline points="{line}" fill="none" stroke="{COLORS[0]}" stroke-width="2"/>')
    for number, ((x, y, least, most), name) in enumerate(named):
        (h, v), (_, under), (_, over) = (place(x, at) for at in (y, least, most))
        parts.append(f'<path d="M{h} {under}V{over}" stroke="{COLORS[0]}"/><circle cx="{h}" cy="{v}" r="4"/>')
        rises = number + 1 < len(named) and named[number + 1][0][1] > y  # then the line is in the way above
        parts.append(f'<text x="{h + 8}" y="{v + (20 if rises else -8)}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def intervals(
    title: str, across: str, rows: Mapping[str, Mapping[str, tuple[float, float, float]]], ends: tuple[float, float]
) -> str:
    """An SVG of a mean with its interval for each row and series, each series of one color and height in the row.

    rows: by name, and by series, mean, low and high.  ends: of the axis across, which has a line at 0.
    """
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    left, step = 180, (HEIGHT - TOP - BOTTOM) / max(1, len(rows))

    def place(x: float) -> float:
        return round(left + (x - ends[0]) / (ends[1] - ends[0]) * (WIDTH - left - MARGIN - 90), 1)

    parts = _begun(title, across, "", MARGIN)
    for tick in (ends[0], ends[0] / 2, 0.0, ends[1] / 2, ends[1]):
        color = "#888" if tick == 0 else "#ddd"
        parts.append(f'<path d="M{place(tick)} {TOP}V{HEIGHT - BOTTOM}" stroke="{color}"/>')
        parts.append(f'<text x="{place(tick)}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{tick:g}</text>')
    for number, (row, cells) in enumerate(rows.items()):
        middle = TOP + (number + 0.5) * step
        parts.append(f'<text x="{left - 10}" y="{middle + 4:.1f}" text-anchor="end">{escape(row)}</text>')
        for name, (mean, low, high) in cells.items():
            color = COLORS[names.index(name) % len(COLORS)]
            v = round(middle + (names.index(name) - (len(names) - 1) / 2) * min(7, step / (len(names) + 1)), 1)
            parts.append(f'<path d="M{place(low)} {v}H{place(high)}" stroke="{color}" stroke-width="1.5"/>')
            parts.append(f'<circle cx="{place(mean)}" cy="{v}" r="3" fill="{color}"/>')
    for number, name in enumerate(names):
        v = TOP + 14 + 18 * number
        parts.append(f'<circle cx="{WIDTH - 125}" cy="{v - 4}" r="4" fill="{COLORS[number % len(COLORS)]}"/>')
        parts.append(f'<text x="{WIDTH - 115}" y="{v}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _begun(title: str, across: str, up: str, right: int = RIGHT) -> list[str]:
    """Paper, title, and what the axes show."""
    middle, half = (LEFT + WIDTH - right) / 2, (TOP + HEIGHT - BOTTOM) / 2
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="13">',
        f'<title>{escape(title)}</title><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="24" font-size="15" font-weight="bold">{escape(title)}</text>',
        f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(across)}</text>',
        f'<text transform="translate(16 {half}) rotate(-90)" text-anchor="middle">{escape(up)}</text>',
    ]


def _apart(heights: dict[str, float], gap: float = 16) -> dict[str, float]:
    """The same heights, moved down where two would overlap."""
    placed: dict[str, float] = {}
    before = -math.inf
    for name, height in sorted(heights.items(), key=lambda item: item[1]):
        before = max(height, before + gap)
        placed[name] = before
    return placed


def save(path: Path, title: str, across: str, up: str, series: Series) -> None:
    """Write the plot, if there is anything to be drawn."""
    if any(series.values()):
        path.write_text(loglog(title, across, up, series), encoding="utf-8")
