"""Rows of a table and their views as text, to see at a glance what a method will be asked to hold together."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from nearfar.modalities.table.columns import Columns
from nearfar.modalities.table.samples import TableSamples
from nearfar.modalities.table.views import Draws, Views

_INK, _FAINT, _CHANGED = (40, 40, 40), (120, 120, 120), (200, 60, 20)
_MOST = 16  # columns that are shown
_CELL, _LINE, _MARGIN = 104, 22, 20


def row_sheet(data: TableSamples, views: Views, index: Tensor, draws: Draws) -> Image.Image:
    """Draw each row and below it its views, a line each; what a view has otherwise than the row stands in color."""
    numbers, codes = data.fetch(index)
    lines: list[tuple[str, list[tuple[str, bool]]]] = []
    made = [views.changed(view, numbers, codes, draws.numbers[:, v]) for v, view in enumerate(views.views)]
    names = data.columns.names[:_MOST]
    for i, position in enumerate(index.tolist()):
        own = data.describe(position)
        lines.append((f"row {data.names[position]}", [(word, False) for word in own]))
        for v, (a, b) in enumerate(made):
            view_words = _described(data.columns, a[i : i + 1], b[i : i + 1], data)
            mixed = f", {draws.weights[i, v]:.0%} own" if views.views[v].mix else ""
            lines.append(
                (f"view {v + 1}{mixed}", [(new, new != old) for new, old in zip(view_words, own, strict=True)])
            )
    font = ImageFont.load_default(12)
    height = 2 * _MARGIN + _LINE * (len(lines) + 1) + 8 * len(index)
    sheet = Image.new("RGB", (2 * _MARGIN + _CELL * (len(names) + 1), height), "white")
    pen = ImageDraw.Draw(sheet)
    for c, name in enumerate(names):
        pen.text((_MARGIN + _CELL * (c + 1), _MARGIN), _cut(name, font), fill=_FAINT, font=font)
    top = _MARGIN + _LINE
    for n, (head, words) in enumerate(lines):
        if n % (len(made) + 1) == 0:
            top += 8
        pen.text((_MARGIN, top), head, fill=_FAINT, font=font)
        for c, (word, changed) in enumerate(words[:_MOST]):
            pen.text(
                (_MARGIN + _CELL * (c + 1), top), _cut(word or "-", font), fill=_CHANGED if changed else _INK, font=font
            )
        top += _LINE
    return sheet


def _described(columns: Columns, numbers: Tensor, codes: Tensor, data: TableSamples) -> list[str]:
    one = TableSamples(
        names=[""],
        label=data.label[:1],
        classes=[],
        group=data.group[:1],
        split=[""],
        columns=columns,
        numbers=numbers,
        codes=codes,
    )
    return one.describe(0)


def _cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    while text and font.getlength(text) > _CELL - 8:
        text = f"{text.removesuffix('…')[:-1]}…"
    return text
