"""Recordings and their views as spectrograms, to see at a glance what a method will be asked to hold together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from nearfar.errors import printable
from nearfar.looking.features import inferno
from nearfar.modalities.audio.mel import log_mel
from nearfar.modalities.audio.samples import AudioSamples
from nearfar.modalities.audio.views import Draws, Views, plain

_INK, _FAINT = (40, 40, 40), (120, 120, 120)
_HEIGHT, _MARGIN, _GAP, _CAPTION = 96, 20, 8, 18
BANDS, RANGE = 48, 9.0
"""Bands that are drawn; and how much of the logarithm of power, below the loudest, is told apart: 39 dB."""


def spectrograms(waves: Tensor, rate: int, *, width: int, height: int = _HEIGHT) -> Tensor:
    """Waves as pictures, low tones below: N x L -> N x 3 x height x width, uint8. Each is scaled by its own loudest."""
    window = max(64, round(0.025 * rate))
    bands = next(b for b in (BANDS, 32, 24, 16, 8) if rate / window < rate / (12 * b) or b == 8)
    mel = log_mel(rate, window, max(16, min(window // 4, waves.shape[1] // 64)), bands).log(waves)  # N x bands x T
    level = 1 - (mel.amax((1, 2), keepdim=True) - mel) / RANGE
    level = F.interpolate(level[:, None].clamp(0, 1), (height, width), mode="bilinear", antialias=True)[:, 0].flip(1)
    silent = (waves.abs().amax(1) == 0)[:, None, None]
    return inferno(level.masked_fill(silent, 0)).mul(255).round().byte()


def view_sheet(samples: AudioSamples, views: Views, index: Tensor, draws: Draws) -> Image.Image:
    """Draw each recording, at most 4 views long, and its views beside it, one row a sample."""
    longest = min(4 * views.length, max(views.length, int(samples.lengths[index].max())))
    whole = plain(longest, samples.rate)(*samples.fetch(index))[0]
    columns = [_drawn(whole, samples.rate, min(480, round(160 * longest / views.length)))]
    columns += [_drawn(view, samples.rate, 160) for view in views(*samples.fetch(index), draws=draws)]
    titles = ["recording", *(f"view {v}" for v in range(1, len(columns)))]
    return _laid_out(columns, titles, [samples.names[i] for i in index.tolist()])


def recording_grid(samples: AudioSamples, index: Tensor, captions: Sequence[str], length: int) -> Image.Image:
    """Draw the middle of some recordings, each with its caption. length: of what is shown, in samples."""
    shown = _drawn(plain(length, samples.rate)(*samples.fetch(index))[0], samples.rate, 240)
    lines = [
        f"{samples.names[i]}  {caption}".replace("\n", "  ")
        for i, caption in zip(index.tolist(), captions, strict=True)
    ]
    return _laid_out([shown], [""], lines)


def _drawn(waves: Tensor, rate: int, width: int) -> list[Image.Image]:
    pictures = spectrograms(waves.cpu().float(), rate, width=width)
    return [Image.fromarray(np.ascontiguousarray(picture.permute(1, 2, 0).numpy())) for picture in pictures]


def _laid_out(columns: list[list[Image.Image]], titles: list[str], names: list[str]) -> Image.Image:
    font, small = ImageFont.load_default(14), ImageFont.load_default(11)
    widths = [column[0].width for column in columns]
    shown = [printable(name) for name in names]
    wide = max(sum(widths) + _GAP * (len(widths) - 1), *(round(small.getlength(name)) for name in shown))
    pitch, header = _HEIGHT + _CAPTION + _GAP, 24 if any(titles) else 0
    sheet = Image.new("RGB", (2 * _MARGIN + wide, 2 * _MARGIN + header + pitch * len(names)), "white")
    pen, left = ImageDraw.Draw(sheet), _MARGIN
    for column, title, width in zip(columns, titles, widths, strict=True):
        pen.text((left + width / 2, _MARGIN + header / 2 - 4), title, fill=_INK, font=font, anchor="mm")
        for row, picture in enumerate(column):
            sheet.paste(picture, (left, _MARGIN + header + pitch * row))
        left += width + _GAP
    for row, name in enumerate(shown):
        top = _MARGIN + header + pitch * row + _HEIGHT
        pen.text((_MARGIN, top + _CAPTION / 2), name, fill=_FAINT, font=small, anchor="lm")
    return sheet
