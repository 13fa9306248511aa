from __future__ import annotations

import pytest
import torch
from PIL import Image

from nearfar.modalities.image import named
from nearfar.modalities.image import views as image
from nearfar.modalities.image.sheet import contact_sheet
from nearfar.modalities.image.views import Views


def sheet(views: Views, channels: int = 3, captions: list[str] | None = None, aspects: tuple[float, ...] = (1.0, 2.0)):
    pixels = torch.randint(0, 100, (len(aspects), channels, 48, 48), dtype=torch.uint8)
    draws = views.draw(len(aspects), torch.Generator().manual_seed(0))
    return contact_sheet(pixels, torch.tensor(aspects), views, draws, captions, height=64)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_any_channels_are_drawn_on_white(channels: int) -> None:
    drawn = sheet(named.simclr(32), channels)
    assert drawn.mode == "RGB"
    assert drawn.getpixel((0, 0)) == (255, 255, 255)
    assert drawn.getpixel((drawn.width - 1, drawn.height - 1)) == (255, 255, 255)


def dark_columns(drawn: Image.Image, top: int, bottom: int) -> int:
    """How many columns of pixels have anything dark between two rows."""
    gray = drawn.convert("L")
    return sum(min(gray.crop((x, top, x + 1, bottom)).tobytes()) < 128 for x in range(drawn.width))


def test_originals_have_their_true_shape_and_views_are_squares() -> None:
    square = dark_columns(sheet(image.plain(32), aspects=(1.0,)), 60, 100)
    wide = dark_columns(sheet(image.plain(32), aspects=(2.0,)), 60, 100)
    assert (square, wide) == (64 + 64, 128 + 64)


def test_views_add_columns_and_captions_add_height() -> None:
    plain, two, many = (sheet(recipe(32)) for recipe in (image.plain, named.simclr, named.swav))
    assert plain.width < two.width < many.width
    assert sheet(named.simclr(32), captions=["a", "b"]).height > two.height


def test_a_long_caption_stays_inside() -> None:
    assert (
        sheet(image.plain(32), captions=["x" * 500, "folder/" * 80]).size
        == sheet(image.plain(32), captions=["a", "b"]).size
    )


def test_captions_must_be_as_many_as_images() -> None:
    with pytest.raises(ValueError, match="got 1 captions for 2"):
        sheet(image.plain(32), captions=["a"])
