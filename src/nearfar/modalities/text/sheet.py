"""Sentences and their views as lines of text, to see at a glance what a method will be asked to hold together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from nearfar.errors import printable
from nearfar.modalities.text.samples import TextSamples
from nearfar.modalities.text.views import Draws, Views

_INK, _FAINT, _CHANGED = (40, 40, 40), (120, 120, 120), (200, 60, 20)
_LINE, _MARGIN, _INDENT, _LONGEST = 24, 20, 110, 160

FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "arialuni.ttf")
"""Of the system, by the names under which Pillow finds them."""
NO_SIGN = "\U0010ffff"
"""A code point that no font has."""

Line = tuple[str, str, tuple[int, int, int]]


def sentence_sheet(
    samples: TextSamples, views: Views | None, index: Tensor, draws: Draws | None, captions: Sequence[str] = ()
) -> Image.Image:
    """Draw each sentence and below it its views, a line each; a view that says otherwise stands in color.

    captions: in the place of views, of each sentence.
    """
    if views is None:
        below = [[("", line, _FAINT) for line in caption.split("\n") if line] for caption in captions]
    else:
        below = _views(samples, views, index, draws)
    blocks: list[list[Line]] = []
    for place, i in enumerate(index.tolist()):
        own = [
            (f"sentence {samples.names[i]}" if k == 0 else "", text, _INK) for k, text in enumerate(samples.texts[i])
        ]
        blocks.append([*own, *below[place]])
    font, lost = _font({sign for block in blocks for _, text, _ in block for sign in _cut(text) if not sign.isspace()})
    if lost:
        blocks.append([("", f"{lost} signs have no font here and are drawn as boxes; a report shows them.", _FAINT)])
    width = max(font.getlength(_cut(text)) for block in blocks for _, text, _ in block)
    height = 2 * _MARGIN + _LINE * sum(map(len, blocks)) + 12 * len(blocks)
    sheet = Image.new("RGB", (2 * _MARGIN + _INDENT + round(width), height), "white")
    pen, top = ImageDraw.Draw(sheet), _MARGIN
    for block in blocks:
        for head, text, color in block:
            pen.text((_MARGIN, top), head, fill=_FAINT, font=font)
            pen.text((_MARGIN + _INDENT, top), _cut(text), fill=color, font=font)
            top += _LINE
        top += 12
    return sheet


def _views(samples: TextSamples, views: Views, index: Tensor, draws: Draws | None) -> list[list[Line]]:
    """Of each sentence its views: what the tokenizer's pieces say, as the encoder sees them."""
    columns = samples.fetch(index)
    made = [views.tokenizer.decode(words) for words in views.cut(views.edited(*columns, draws=draws))]
    whole = [views.tokenizer.decode(words) for words in views.cut(views.unedited(*columns))]
    return [
        [
            (f"view {v + 1}", made[v][row], _INK if made[v][row] == whole[v][row] else _CHANGED)
            for v in range(len(views))
        ]
        for row in range(len(index))
    ]


def _font(signs: set[str]) -> tuple[Any, int]:
    """The font that has most of some signs, and how many of them it lacks. Pillow's own has Latin letters alone."""
    best: tuple[Any, int] = ImageFont.load_default(14), len(signs) + 1
    for name in ("", *FONTS):
        try:
            font: Any = ImageFont.truetype(name, 14) if name else best[0]
        except OSError:
            continue
        none = bytes(font.getmask(NO_SIGN))
        lost = sum(bytes(font.getmask(sign)) == none for sign in signs)
        best = min(best, (font, lost), key=lambda one: one[1])
        if not lost:
            break
    return best


def _cut(text: str) -> str:
    text = printable(" ".join(text.split()))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
