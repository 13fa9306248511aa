"""Thumbnails as a kind of data: opened, measured, and turned into views, as the settings of a run say."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor, nn

from nearfar.batch import MISSING
from nearfar.modalities.image import named, views
from nearfar.modalities.image.drawings import drawings
from nearfar.modalities.image.duplicates import duplicates
from nearfar.modalities.image.encoder import ImageEncoder, image_encoder
from nearfar.modalities.image.samples import Images, open_images
from nearfar.modalities.image.sheet import contact_sheet, image_grid
from nearfar.modalities.image.sources import SUFFIXES
from nearfar.report.shown import Shown, Thumbnails
from nearfar.settings import Settings
from nearfar.training.plan import DRAWINGS

RAW = "raw pixels"


def open_samples(data: Any, settings: Settings) -> Images:
    """The data of a run."""
    return open_as_set(data, settings)


def open_as(data: Any, made: dict[str, Any], *, labels: Any, label_column: str, max_bad: float) -> Images:
    """Data in the form in which the encoder of a run saw its training data."""
    if isinstance(data, Images):
        return data
    if isinstance(data, str) and data == DRAWINGS:
        return drawings("train")
    images = open_images(
        data,
        labels=labels,
        label_column=label_column,
        side=made["side"],
        max_bad=max_bad,
        white=made.get("white"),
    )
    if images.channels != made["channels"]:
        raise ValueError(
            f"the encoder was trained on images of {made['channels']} channel(s), and those in {str(data)!r} "
            f"have {images.channels}: convert them first"
        )
    return images


def facts(data: Images, settings: Settings) -> dict[str, Any]:
    """Channels, the side of the stored squares, and the side of the views; what 16 bits were scaled by."""
    return {"channels": data.channels, "side": data.side, "size": view_size(settings, data.side), "white": data.white}


def make_encoder(data: Images, settings: Settings, facts: dict[str, Any]) -> ImageEncoder:
    """The encoder that the settings name, behind a normalization measured on the data."""
    mean, std = pixel_statistics(data)
    return image_encoder(settings.encoder, channels=data.channels, size=facts["size"], mean=mean, std=std)


def make_views(data: Images, settings: Settings, facts: dict[str, Any]) -> views.Views:
    """The views that the settings name."""
    return named_views(settings, facts["size"])


@torch.no_grad()
def insist_fitting(encoder: ImageEncoder, viewer: views.Views) -> None:
    """Raise ValueError where a view is too small for the encoder."""
    channels, size, name = (encoder.spec[key] for key in ("channels", "size", "name"))
    for side in sorted({view.size for view in viewer.views} - {size}):
        try:
            encoder.eval()(torch.zeros(1, channels, side, side))
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{name!r} cannot take views of {side} px ({reason}): give a larger --size") from error


def plain(encoder: ImageEncoder) -> views.Views:
    """The middle of each image."""
    return views.plain(encoder.spec["size"])


def raw(encoder: ImageEncoder) -> views.Views:
    """The same, at 32 px at most."""
    return views.plain(min(32, encoder.spec["size"]))


def describe(facts: dict[str, Any]) -> str:
    return f"at {facts['size']} px"


def sheet(data: Images, viewer: views.Views, index: Tensor, draws: views.Draws) -> Image:
    """A contact sheet of some images and their views."""
    return contact_sheet(*data.fetch(index), viewer, draws, [data.names[i] for i in index.tolist()])


def grid(data: Images, index: Tensor, captions: list[str]) -> Image:
    """Some images, each over its caption."""
    return image_grid(data.pixels(index).cpu(), data.aspect[index], captions)


def copies(data: Images) -> Tensor:
    """Which images are the same, or nearly."""
    return duplicates(data).group


def shown(data: Images) -> Shown:
    """Thumbnails in their true proportions."""
    look = Thumbnails(pixels=data.pixels, aspect=data.aspect)
    return Shown(look=look, names=data.names, label=data.label, classes=data.classes)


def open_as_set(data: Any, settings: Settings, side: int | None = None) -> Images:
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
            white=settings.white or None,
        )
    if settings.labels == "none":
        images = dataclasses.replace(images, label=torch.full_like(images.label, MISSING), classes=[])
    return images


def view_size(settings: Settings, side: int) -> int:
    """The side of the views: as set, or the stored side up to 64 px, else 128."""
    return settings.size or (side if side <= 64 else 128)


def named_views(settings: Settings, size: int) -> views.Views:
    """The views of that side that the settings name. Raises ValueError for those of another kind of data."""
    make = getattr(named, settings.views, None)
    if make is None:
        raise ValueError(f"--views {settings.views!r} is not for images: `nearfar views DATA` shows those that are")
    made = make(size, crops=settings.crops) if settings.views in ("swav", "relicv2") else make(size)
    return made.repeated(settings.view_count) if settings.view_count else made


def pixel_statistics(data: Images, most: int = 2000) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, in units of [0, 1], over some samples."""
    some = torch.linspace(0, len(data) - 1, min(most, len(data))).long()
    pixels = data.pixels(some).cpu()
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in pixels.unbind(1)])  # C x 256
    share, level = counts / counts.sum(1, keepdim=True).double(), torch.arange(256, dtype=torch.float64) / 255
    mean, square = share @ level, share @ level.square()
    std = (square - mean.square()).clamp(min=1e-4).sqrt()
    return [round(v, 4) for v in mean.tolist()], [round(v, 4) for v in std.tolist()]


def mild_views(settings: Settings) -> str:
    """The views of which fine-tuning takes the first: crop and flip; for drawings a mild map."""
    return "drawing" if settings.views.endswith("drawing") else "cmc"


def open_files(data: Any, open_data: Callable[[Any], Images]) -> Images:
    """Images to classify: the path of one, or of several in a list or tuple, named as given; or all of `data`.

    open_data: opens a list of paths, or other data.
    """
    files = [data] if isinstance(data, str | Path) and Path(data).suffix.lower() in SUFFIXES else data
    if not isinstance(files, list | tuple) or not all(isinstance(file, str | Path) for file in files):
        return open_data(data)
    given = {Path(file).absolute().as_posix(): str(file) for file in files}
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "files.txt"
        listed.write_text("\n".join(given) + "\n", encoding="utf-8")
        images = open_data(listed)

    def as_given(name: str) -> str:  # a page of a file has a number behind the file's name
        file, mark, page = (name, "", "") if name in given else name.rpartition("#")
        return given[file] + mark + page

    return dataclasses.replace(
        images,
        names=[as_given(name) for name in images.names],
        skipped=[(as_given(name), why) for name, why in images.skipped],
    )


def weights_off_the_shelf(name: str, file: str, samples: Images) -> tuple[nn.Module, views.Views]:
    """A timm network with weights from a file, and the views that it takes: of its own size, gray as three channels.

    Raises FileNotFoundError or ValueError where the weights are not the network's, or the images have other channels.
    """
    from timm import get_pretrained_cfg

    if samples.channels not in (1, 3):
        raise ValueError(f"--weights {file!r} are for color images, and these have {samples.channels} channels")
    cfg = get_pretrained_cfg(name, allow_unregistered=True)
    size = cfg.input_size[-1] if cfg is not None else 224
    encoder = image_encoder(name, size=size, small_stem=False, weights=file).eval()
    return encoder if samples.channels == 3 else nn.Sequential(_Thrice(), encoder), views.plain(size)


class _Thrice(nn.Module):
    """One channel as three equal ones."""

    def forward(self, x: Tensor) -> Tensor:
        return x.expand(-1, 3, -1, -1)
