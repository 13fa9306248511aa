"""A contact sheet of images and their views, to see at a glance what a method will be asked to hold together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from nearfar.errors import UserError, printable
from nearfar.modalities.image.plan import Draws
from nearfar.modalities.image.views import Views

_INK, _FAINT = (40, 40, 40), (120, 120, 120)


def contact_sheet(
    pixels: Tensor,
    aspect: Tensor,
    views: Views,
    draws: Draws,
    captions: Sequence[str] | None = None,
    *,
    height: int = 128,
) -> Image.Image:
    """Draw each image in its true shape and its views beside it, one row a sample, on white.

    pixels, aspect, draws: as `views` takes them, N x C x S x S, N, and draws for N. captions: a name for each image.
    height: of a row in pixels. A view smaller than its row is shown with its pixels enlarged; multi-crop views keep
    their sizes relative to the largest. More than 3 channels show the first 3, 2 channels the first.
    Raises ValueError if the captions are not as many as the images.
    """
    if captions is not None and len(captions) != len(pixels):
        raise UserError(f"got {len(captions)} captions for {len(pixels)} images: give one for each")
    largest = max(view.size for view in views.views)
    columns = [[_true_shape(x, float(a), height) for x, a in zip(pixels, aspect, strict=True)]]
    for view, seen in zip(views.views, views(pixels, aspect, draws), strict=True):
        side = round(height * view.size / largest)
        resampling = Image.Resampling.NEAREST if view.size <= side else Image.Resampling.LANCZOS
        columns.append([_image(x.mul(255).round().byte()).resize((side, side), resampling) for x in seen])

    font, small = ImageFont.load_default(14), ImageFont.load_default(11)
    gap, margin, header = max(6, height // 16), 20, 30
    caption = 18 if captions is not None else 0
    titles = ["original", *(f"view {v}" for v in range(1, len(columns)))]
    widths = [
        max(*(x.width for x in column), round(font.getlength(title)))
        for title, column in zip(titles, columns, strict=True)
    ]
    lefts = [margin + sum(widths[:k]) + gap * k + (gap if k else 0) for k in range(len(columns))]
    pitch = height + caption + gap
    size = (lefts[-1] + widths[-1] + margin, margin + header + pitch * len(pixels) - gap + margin)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for title, left, width in zip(titles, lefts, widths, strict=True):
        pen.text((left + width / 2, margin + header / 2 - 4), title, fill=_INK, font=font, anchor="mm")
    for row in range(len(pixels)):
        top = margin + header + pitch * row
        for column, left, width in zip(columns, lefts, widths, strict=True):
            x = column[row]
            sheet.paste(x, (left + (width - x.width) // 2, top + (height - x.height) // 2))
        if captions is not None:
            name = _shortened(captions[row], small, size[0] - 2 * margin)
            pen.text((margin, top + height + caption / 2), name, fill=_FAINT, font=small, anchor="lm")
    return sheet


def image_grid(
    pixels: Tensor, aspect: Tensor, captions: Sequence[str], *, height: int = 128, across: int = 5
) -> Image.Image:
    """Draw images in their true shapes, some in a line, each over its caption, on white.

    pixels, aspect: N x C x S x S, uint8, and N.  height: of an image in pixels.  across: images in a line.
    """
    shown = [_true_shape(x, float(a), height) for x, a in zip(pixels, aspect, strict=True)]
    small, margin, caption = ImageFont.load_default(11), 20, 34
    wide, pitch = max(120, *(x.width for x in shown)) + 16, height + caption
    lines = -(-len(shown) // across)
    sheet = Image.new("RGB", (2 * margin + wide * min(across, len(shown)), 2 * margin + pitch * lines), "white")
    pen = ImageDraw.Draw(sheet)
    for n, (x, name) in enumerate(zip(shown, captions, strict=True)):
        left, top = margin + wide * (n % across), margin + pitch * (n // across)
        sheet.paste(x, (left, top + (height - x.height) // 2))
        head, _, rest = name.partition("\n")
        pen.text((left, top + height + 9), _shortened(head, small, wide - 16), fill=_INK, font=small, anchor="lm")
        pen.text((left, top + height + 22), _shortened(rest, small, wide - 16), fill=_FAINT, font=small, anchor="lm")
    return sheet


def picture(x: Tensor) -> Image.Image:
    """C x H x W, uint8, of 1 or 3 channels, as an image that loses nothing."""
    if len(x) not in (1, 3):
        raise UserError(f"images of {len(x)} channels cannot be written as PNG, only those of 1 or 3")
    return Image.fromarray(np.ascontiguousarray(x[0].numpy())) if len(x) == 1 else _image(x)


def image_rows(rows: Sequence[tuple[str, Tensor]], *, height: int = 64) -> Image.Image:
    """Draw rows of square images, N x C x S x S, uint8, each row under its caption, on white.

    height: of an image in pixels, at least.
    """
    side = max(height // max(len(rows[0][1][0][0]), 1), 1) * len(rows[0][1][0][0])
    font, margin, caption, gap = ImageFont.load_default(12), 20, 22, 4
    width = max(len(pixels) for _, pixels in rows) * (side + gap)
    sheet = Image.new("RGB", (2 * margin + max(width, 600), 2 * margin + len(rows) * (side + caption + gap)), "white")
    pen = ImageDraw.Draw(sheet)
    for row, (text, pixels) in enumerate(rows):
        top = margin + row * (side + caption + gap)
        pen.text((margin, top + caption / 2), printable(text), fill=_INK, font=font, anchor="lm")
        for column, x in enumerate(pixels):
            shown = _image(x).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(shown, (margin + column * (side + gap), top + caption))
    return sheet


def _image(x: Tensor) -> Image.Image:
    """C x H x W, uint8, as an image."""
    channels = x[:3] if len(x) >= 3 else x[:1].expand(3, -1, -1)
    return Image.fromarray(np.ascontiguousarray(channels.permute(1, 2, 0).cpu().numpy()))


def _true_shape(x: Tensor, aspect: float, height: int) -> Image.Image:
    """A squashed square in its true shape, in a box twice as wide as high at most."""
    width = min(height * aspect, 2 * height)
    size = (max(1, round(width)), max(1, round(width / aspect)))
    return _image(x).resize(size, Image.Resampling.NEAREST if x.shape[-1] <= min(size) else Image.Resampling.LANCZOS)


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    """`text`, with its beginning left out if it is wider than `width`: the end of a path says more."""
    text = printable(text)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength("…" + text) > width:
        text = text[1:]
    return "…" + text
