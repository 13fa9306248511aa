"""The parts of the page that show samples: the map, nearest neighbors, copies, outliers, the views."""

from __future__ import annotations

import base64
from typing import Any

from nearfar.report import parts, rows
from nearfar.report.record import Record

MAP_LEAD = (
    "Each point is a sample; near points look alike to the encoder. Distances between far groups mean little. Point at "
    "a sample to see it, click on it for its nearest neighbors, drag over a part to enlarge it."
)
NEIGHBORS_LEAD = (
    "On the left some samples; beside each, those the encoder finds most alike, the nearest first. The number is the "
    "cosine similarity: 1 is the same direction, 0 unrelated."
)
COPIES_LEAD = (
    "The same image more than once, also at another size, quality or brightness. As negatives of each other copies "
    "are pushed apart from themselves; on both sides of a split they flatter the test. `nearfar doctor` lists them all."
)
OUTLIERS_LEAD = (
    "The samples that are least like any other to the encoder: broken or foreign files, or rare cases that deserve "
    "more samples. The number is the mean cosine similarity to the nearest neighbors."
)
VIEWS_LEAD = (
    "What the encoder saw: different views of one sample, which it learned to call alike. If you yourself would not "
    "call two of them the same thing, the views are too strong."
)


def embedding(record: Record) -> str:
    """The place of the map; the page's script draws it."""
    if record.map is None:
        why = "results/map.json is absent: no map was made."
        return parts.section("map", "Map of the embeddings", MAP_LEAD, parts.missing(why))
    hint = parts.missing("Click on a point: its nearest neighbors appear here.")
    return parts.section(
        "map",
        "Map of the embeddings",
        MAP_LEAD,
        '<div class="map"><div><div class="chips"></div><div class="plot"></div></div>'
        f'<aside class="near" aria-live="polite">{hint}</aside></div>',
        f'<p class="protocol">{parts.text(record.map.get("note", ""))}</p>',
    )


def neighbors(record: Record) -> str:
    """A row for each query: it, and what the encoder finds nearest."""
    if record.neighbors is None:
        why = "results/neighbors.json is absent: no neighbors were looked up."
        return parts.section("neighbors", "Nearest neighbors", NEIGHBORS_LEAD, parts.missing(why))
    protocol = parts.protocol(record.neighbors)
    if "columns" in record.neighbors:
        tables = rows.neighbors(record.neighbors)
        return parts.section("neighbors", "Nearest neighbors", rows.NEIGHBORS_LEAD, tables, protocol)
    lines = [
        f'<div class="row">{_tile(query, "query", "query")}'
        + "".join(
            _tile(near, parts.agreement(near, query), parts.number(near["similarity"], 2))
            for near in query["neighbors"]
        )
        + "</div>"
        for query in record.neighbors["queries"]
    ]
    grid = f'<div class="grid">{"".join(lines)}</div>'
    return parts.section("neighbors", "Nearest neighbors", NEIGHBORS_LEAD, grid, protocol)


def copies(record: Record) -> str:
    """A frame for each set of copies; those whose labels contradict each other say so."""
    if record.copies is None:
        return ""
    note = f'<p class="finding">{parts.text(record.copies.get("note", ""))}</p>'
    if "columns" in record.copies:
        return parts.section("copies", "Copies", rows.COPIES_LEAD, note, rows.copies(record.copies))
    frames = ""
    for found in record.copies["sets"]:
        first, *_ = samples = found["samples"]
        head = f"{found['size']:,} copies" + (f", {len(samples)} shown" if found["size"] > len(samples) else "")
        torn = '<span class="torn">✗ labels differ</span>' if found.get("torn") else ""
        tiles = "".join(
            _tile(
                shown,
                parts.agreement(shown, first) if torn and shown is not first else "",
                shown["name"].rsplit("/", 1)[-1],
            )
            for shown in samples
        )
        alike = [shown["similarity"] for shown in samples[1:] if shown["similarity"] is not None]
        seen = f'<p class="alike">cosine {parts.number(min(alike), 2)}</p>' if alike else ""
        if len(alike) > 1:
            seen = f'<p class="alike">cosine {parts.number(min(alike), 2)} to {parts.number(max(alike), 2)}</p>'
        frames += f'<div class="set"><h3>{parts.text(head)} {torn}</h3><div class="tiles">{tiles}</div>{seen}</div>'
    shown = f'<div class="sets">{frames}</div>' if frames else ""
    return parts.section("copies", "Copies", COPIES_LEAD, note, shown)


def outliers(record: Record) -> str:
    """The samples that are like few others, the farthest first."""
    if record.outliers is None:
        return ""
    note, protocol = (
        f'<p class="finding">{parts.text(record.outliers.get("note", ""))}</p>',
        parts.protocol(record.outliers),
    )
    if "columns" in record.outliers:
        table = rows.outliers(record.outliers)
        return parts.section("outliers", "Outliers", rows.OUTLIERS_LEAD, note, table, protocol)
    tiles = "".join(
        _tile(shown, "", parts.number(shown["similarity"], 2), shown["name"].rsplit("/", 1)[-1])
        for shown in record.outliers["samples"]
    )
    shown = f'<div class="row">{tiles}</div>' if tiles else ""
    return parts.section("outliers", "Outliers", OUTLIERS_LEAD, note, shown, protocol)


def views(record: Record) -> str:
    """The contact sheet."""
    if record.views is None:
        content = parts.missing("views.png is absent: no contact sheet was made.")
    else:
        source = base64.b64encode(record.views).decode()
        content = f'<img class="sheet" src="data:image/png;base64,{source}" alt="Views of some samples">'
    return parts.section("views", "Views", VIEWS_LEAD, content)


def drawn_map(record: Record) -> dict[str, Any] | None:
    """What the page's script draws, with a sprite only if it is an image inside the file."""
    if record.map is None:
        return None
    sprite = str(record.map.get("sprite"))
    return record.map | {"sprite": sprite if parts.DATA_URI.fullmatch(sprite) else None}


def _tile(shown: dict[str, Any], kind: str, head: str, more: str = "") -> str:
    label = "" if shown.get("label") is None else parts.text(shown["label"])
    broken = label.replace("/", "/<wbr>")  # between lines where it may be
    sign = {"same": "✓&nbsp;", "other": "✗&nbsp;"}.get(kind, "")
    more = f"<span>{parts.text(more)}</span>" if more else ""
    return (
        f'<figure class="tile {kind}">{parts.image(shown.get("image"), shown["name"])}'
        f'<figcaption><b>{parts.text(head)}</b>{more}<span title="{label}">{sign}{broken}</span></figcaption></figure>'
    )
