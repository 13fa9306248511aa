"""Pictures of several views of the same samples, side by side."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from nearfar.errors import printable

INK = (40, 40, 40)


def side_by_side(sheets: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """One picture of several, from left to right, each under its title, with a line between them."""
    font, header, gap = ImageFont.load_default(18), 44, 12
    widths = [max(sheet.width, round(font.getlength(printable(title))) + 40) for title, sheet in sheets]
    size = (sum(widths) + gap * (len(sheets) - 1), header + max(sheet.height for _, sheet in sheets))
    whole = Image.new("RGB", size, "white")
    pen, left = ImageDraw.Draw(whole), 0
    for (title, sheet), width in zip(sheets, widths, strict=True):
        if left:
            pen.line((left - gap / 2, 16, left - gap / 2, size[1] - 16), fill=(200, 200, 200), width=2)
        pen.text((left + 20, header / 2 + 6), printable(title), fill=INK, font=font, anchor="lm")
        whole.paste(sheet, (left, header))
        left += width + gap
    return whole
