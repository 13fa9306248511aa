"""Images of each nature, made up, are taken for what they are, and so are real ones."""

from __future__ import annotations

import csv
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from nearfar.modalities.image.drawings import drawings
from nearfar.modalities.image.nature import FEWEST, found_by_pixels, nature, told
from nearfar.modalities.image.samples import Images, open_images

N, SIDE = 210, 32


def cloud(generator: torch.Generator, cells: int, n: int = N) -> Tensor:
    """Smooth noise that has no direction: n x S x S, about 0 to 1."""
    return F.interpolate(torch.rand(n, 1, cells, cells, generator=generator), SIDE, mode="bicubic")[:, 0]


def grid() -> tuple[Tensor, Tensor]:
    """x and y of pixels, S x S each, 0 to 1."""
    y, x = torch.meshgrid(torch.linspace(0, 1, SIDE), torch.linspace(0, 1, SIDE), indexing="ij")
    return x, y


def landscapes(generator: torch.Generator) -> Tensor:
    """A bright sky above ground with upright stems: gray."""
    x, y = grid()
    horizon = 0.3 + 0.4 * torch.rand(N, 1, 1, generator=generator) + 0.2 * (cloud(generator, 4) - 0.5)
    stems = (20 * x + 6 * torch.rand(N, 1, 1, generator=generator)).sin() * cloud(generator, 3)
    return torch.where(y < horizon, 0.8 + 0.2 * cloud(generator, 3), 0.3 + 0.2 * stems + 0.2 * cloud(generator, 8))


def strokes(generator: torch.Generator, width: float, corners: list[tuple[float, float]], n: int = N) -> Tensor:
    """A line through some corners, each of which is moved a little: n x S x S, ink 1."""
    x, y = grid()
    points = torch.tensor(corners) + 0.05 * torch.randn(n, len(corners), 2, generator=generator)
    nearest = torch.full((n, SIDE, SIDE), 9.0)
    for a, b in zip(points.unbind(1)[:-1], points.unbind(1)[1:], strict=True):
        along = b - a
        dx, dy = x - a[:, 0, None, None], y - a[:, 1, None, None]
        share = (dx * along[:, 0, None, None] + dy * along[:, 1, None, None]) / along.square().sum(1)[:, None, None]
        share = share.clamp(0, 1)
        away = torch.hypot(dx - share * along[:, 0, None, None], dy - share * along[:, 1, None, None])
        nearest = nearest.minimum(away)
    return (SIDE * (width / 2 - nearest) + 0.5).clamp(0, 1)


SEVEN = [(0.25, 0.2), (0.75, 0.2), (0.45, 0.8)]
CHARACTERS = [
    SEVEN,
    [(0.3, 0.2), (0.3, 0.8), (0.7, 0.8)],
    [(0.3, 0.8), (0.3, 0.25), (0.7, 0.25), (0.7, 0.5), (0.3, 0.5)],
]


def characters(generator: torch.Generator) -> Tensor:
    return torch.cat([strokes(generator, 0.06, corners, N // 3) for corners in CHARACTERS])


def photographs(generator: torch.Generator) -> Tensor:
    gray = landscapes(generator)
    return torch.stack([gray, gray * 0.9, gray * (0.5 + 0.3 * cloud(generator, 2))], 1)


def fruit(generator: torch.Generator) -> Tensor:
    """Each full of a color of its own."""
    color = torch.rand(N, 3, 1, 1, generator=generator)
    return color * (0.5 + 0.5 * landscapes(generator)[:, None])


def cells(generator: torch.Generator) -> Tensor:
    x, y = grid()
    image = 0.1 * cloud(generator, 16)
    for _ in range(4):
        u, v, r = torch.rand(3, N, 1, 1, generator=generator)
        image = image + 0.5 * torch.exp(-((x - u) ** 2 + (y - v) ** 2) / (0.05 + 0.1 * r) ** 2)
    return torch.stack([image, image * 0.7, 0.8 * image], 1)


def sounds(generator: torch.Generator) -> Tensor:
    """Tones that begin at once and fade, most of them low (at the bottom)."""
    x, y = grid()
    image = 0.1 * cloud(generator, 16)
    for _ in range(5):
        start, pitch, strength = torch.rand(3, N, 1, 1, generator=generator)
        fades = torch.exp(-(x - start) / 0.2) * (x >= start)
        image = image + strength * fades * torch.exp(-((y - 1 + 0.7 * pitch**2) ** 2) / 0.003)
    return image


def signs(generator: torch.Generator) -> Tensor:
    x, y = grid()
    disk = (torch.hypot(x - 0.5, y - 0.5) < 0.45).float()
    glyph = strokes(generator, 0.15, SEVEN)
    ground = cloud(generator, 5)
    red, other = torch.where(disk > 0, 0.9 * (1 - glyph), ground), torch.where(disk > 0, 0.2 * (1 - glyph), ground)
    return torch.stack([red, other, other], 1)


def opened(pixels: Tensor) -> Images:
    whole = (255 * pixels).clamp(0, 255).byte()
    return open_images((whole.permute(0, 2, 3, 1) if whole.dim() == 4 else whole).numpy())


@pytest.mark.parametrize(
    ("make", "name", "views"),
    [
        (photographs, "photo", "simclr"),
        (fruit, "colorful", "colorful"),
        (landscapes, "gray_photo", "colorful"),
        (cells, "turned", "turned"),
        (characters, "drawing", "drawing"),
        (lambda generator: 1 - characters(generator), "ink_drawing", "ink_drawing"),
        (sounds, "spectrogram", "spectrogram"),
        (signs, "sign", "sign"),
    ],
)
def test_images_are_taken_for_what_they_are(make: Callable[[torch.Generator], Tensor], name: str, views: str) -> None:
    found = nature(opened(make(torch.Generator().manual_seed(0))))
    assert (found.name, found.views) == (name, views), found.measured


def test_it_is_the_same_for_the_same_images_and_without_labels() -> None:
    images = opened(signs(torch.Generator().manual_seed(0)))
    first = nature(images)
    images.label = torch.arange(len(images)) % 3
    assert nature(images) == first
    assert all(value == value for value in first.measured.values())


def test_few_images_are_not_judged() -> None:
    pixels = characters(torch.Generator().manual_seed(0))[: FEWEST - 1]
    found = nature(opened(pixels))
    assert (found.name, found.measured) == ("gray_photo", {})
    assert str(FEWEST - 1) in found.reasons[0]


def test_what_changes_nothing_is_never_told_and_what_is_always_seen_is() -> None:
    generator = torch.Generator().manual_seed(0)
    gray, alone = cloud(generator, 6), torch.full((N,), -1)
    assert told(gray, [gray.flip(2)], alone, generator) == pytest.approx(0.5, abs=0.06)
    lit = gray + grid()[0]
    assert told(lit, [lit.flip(2)], alone, generator) > 0.95


def test_copies_of_a_group_are_no_evidence() -> None:
    """Forty scenes of five frames: the scenes, not the frames, say that a mirror image is as natural."""
    generator = torch.Generator().manual_seed(1)
    scenes = cloud(generator, 6, N // 5).repeat_interleave(5, 0)
    frames = scenes + 0.05 * torch.randn(N, SIDE, SIDE, generator=generator)
    group = torch.arange(N // 5).repeat_interleave(5)
    assert told(frames, [frames.flip(2)], torch.full((N,), -1), generator) > 0.8
    assert told(frames, [frames.flip(2)], group, generator) == pytest.approx(0.5, abs=0.12)


def test_raw_pixels_find_what_crops_leave() -> None:
    """Each image full of structure of its own: mild crops are found, quarter turns are not."""
    images = opened(cloud(torch.Generator().manual_seed(0), 6)[:100])
    assert found_by_pixels(images, "spectrogram") > 2 * found_by_pixels(images, "turned")
    flat = opened(torch.zeros(100, SIDE, SIDE))
    assert found_by_pixels(flat, "sign") < 0.05


def test_images_without_any_content_are_no_error() -> None:
    assert nature(opened(torch.zeros(N, SIDE, SIDE))).name in ("turned", "gray_photo")


def test_the_drawings_of_the_package_are_drawings() -> None:
    assert nature(drawings("test")).name == "drawing"


def test_small_gray_digits_are_not_drawings() -> None:
    from sklearn.datasets import load_digits

    flat, _ = load_digits(return_X_y=True)
    digits = (flat.reshape(-1, 8, 8) * 15.9).astype(np.uint8)
    assert nature(open_images(digits)).name == "sign"


def _jpegs(path: Path, most: int) -> list[Image.Image]:
    z = dict(np.load(path))
    spans = list(zip(z["offsets"][:-1], z["offsets"][1:], strict=True))[:most]
    return [Image.open(io.BytesIO(z["jpeg"][a:b])) for a, b in spans]


def test_photographs_in_color_and_gray(shared_data: Path) -> None:
    color = np.stack([np.asarray(image) for image in _jpegs(shared_data / "cifar10_test.npz", 400)])
    assert nature(open_images(color)).name == "photo"
    assert nature(open_images(color.mean(3).round().astype(np.uint8))).name == "gray_photo"
    for part in color[:150], color[150:300], color[300:]:  # fewer, of which an upright is told less well
        assert nature(open_images(part)).name != "turned"


def test_fields_of_a_microscope_have_no_upright(shared_data: Path) -> None:
    with tarfile.open(shared_data / "nuclei.tar") as tar:
        table = tar.extractfile("nuclei/index.csv")
        assert table is not None
        rows = list(csv.DictReader(io.TextIOWrapper(table)))
        images = [Image.open(io.BytesIO(tar.extractfile(f"nuclei/{row['path']}").read())) for row in rows]  # pyright: ignore[reportOptionalMemberAccess]
        pixels = np.stack([np.asarray(image.convert("RGB").resize((64, 64))) for image in images])
    assert nature(open_images(pixels)).name == "turned"
    assert nature(open_images(pixels[::2])).name == "turned"
