"""Views that are tried for defaults and have no name in the library. Sizes are in pixels."""

from __future__ import annotations

from dataclasses import replace

from nearfar.modalities.image.plan import Affine, View
from nearfar.modalities.image.views import Views


def crops(size: int) -> Views:
    """Crops of 20 % and more, and flips: colors stay as they are."""
    return Views([_view(size, 0.2, flip=0.5)] * 2)


def photo(size: int) -> Views:
    """Between SimCLR's and the mild ones: crops of 20 % and more, flips, MoCo v2's colors but half its hue, no gray."""
    return Views([replace(_view(size, 0.2, flip=0.5, color=1.0), hue=0.05)] * 2)


def shifts(size: int) -> Views:
    """Pictures of sound: mild crops, shifts, louder and quieter; no flip."""
    affine = Affine(scale=(0.9, 1.1), shift=0.08)
    return Views([_view(size, 0.6, color=0.5, affine=affine)] * 2)


def signs(size: int) -> Views:
    """Signs in color: the affine maps of drawings, on white, with colors that change a little; no flip."""
    affine = Affine(rotate=10, scale=(0.8, 1.1), shear=10, shift=0.05, fill=1.0)
    return Views([_view(size, 0.6, color=0.5, affine=affine)] * 2)


def _view(
    size: int,
    least: float,
    *,
    flip: float = 0.0,
    color: float = 0.0,
    affine: Affine | None = None,
) -> View:
    """color: 1 is the strength of MoCo v2's brightness, contrast and saturation."""
    return View(
        size=size,
        area=(least, 1.0),
        flip=flip,
        jitter=0.8 if color else 0.0,
        brightness=0.4 * color,
        contrast=0.4 * color,
        saturation=0.4 * color,
        hue=0.1 * color,
        affine=affine,
    )
