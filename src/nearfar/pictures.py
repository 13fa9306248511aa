"""Pictures as training sees them: opened, measured, and turned into views, as the settings of a run say."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from nearfar.batch import MISSING
from nearfar.data.drawings import drawings
from nearfar.data.image import Images, open_images
from nearfar.plans import DRAWINGS
from nearfar.settings import Settings
from nearfar.views import image as views


def open_pictures(data: Any, settings: Settings, side: int | None = None) -> Images:
    """The data of a run, with the labels that its settings name. `side`: of the stored squares."""
    if isinstance(data, Images):
        return data
    if isinstance(data, str) and data == DRAWINGS:  # an array would compare each of its numbers
        images = drawings("train")
    else:
        images = open_images(
            data,
            labels=settings.labels if settings.labels not in ("", "none") else None,
            label_column=settings.label_column,
            side=side,
            size=settings.size or 128,
            max_bad=settings.max_bad,
        )
    if settings.labels == "none":
        images = dataclasses.replace(images, label=torch.full_like(images.label, MISSING), classes=[])
    return images


def view_size(settings: Settings, side: int) -> int:
    """The side of the views: as set, or the stored side up to 64 px, else 128."""
    return settings.size or (side if side <= 64 else 128)


def make_views(settings: Settings, size: int) -> views.Views:
    """The views that the settings name."""
    match settings.views:
        case "simclr":
            return views.simclr(size)
        case "moco_v1":
            return views.moco_v1(size)
        case "moco_v2":
            return views.moco_v2(size)
        case "byol":
            return views.byol(size)
        case "barlow":
            return views.barlow(size)
        case "swav":
            return views.swav(size, crops=settings.crops)
        case "supcon":
            return views.supcon(size)
        case "drawing":
            return views.drawing(size)
        case "sce":
            return views.sce(size)
        case "looc":
            return views.looc(size)
        case "looc_drawing":
            return views.looc_drawing(size)
        case "relicv2":
            return views.relicv2(size, crops=settings.crops)


def pixel_statistics(data: Images, most: int = 2000) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, in units of [0, 1], over some samples."""
    some = torch.linspace(0, len(data) - 1, min(most, len(data))).long()
    pixels = data.pixels(some).cpu()
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in pixels.unbind(1)])  # C x 256
    share, level = counts / counts.sum(1, keepdim=True).double(), torch.arange(256, dtype=torch.float64) / 255
    mean, square = share @ level, share @ level.square()
    std = (square - mean.square()).clamp(min=1e-4).sqrt()
    return [round(v, 4) for v in mean.tolist()], [round(v, 4) for v in std.tolist()]
