"""What can be set about training on images, and which data are images. Free of torch."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from nearfar import settings
from nearfar.errors import NotFound, UserError
from nearfar.files import read_json
from nearfar.modalities.image import changes
from nearfar.modalities.recognize import holds_sentences, holds_videos, looks_like_table
from nearfar.modalities.timm_names import insist_network
from nearfar.ranges import NonNegativeFloat, NonNegativeInt, PositiveInt, UnitInterval

DRAWINGS = "drawings"
"""As DATA: the training part of the drawings that come with the package."""

SUFFIXES = (".txt", ".csv", ".tar", ".parquet", ".pq", ".npz", ".npy")
"""Endings of files that may hold images or list them."""

VIEWS = (
    *("simclr", "moco_v1", "moco_v2", "byol", "barlow", "swav", "supcon", "sce", "cmc"),
    *("drawing", "ink_drawing", "colorful", "sign", "turned", "spectrogram"),
    *("looc", "looc_drawing", "relicv2", "excon", "excon_drawing", "clip", "plain", "mirrored"),
)
"""The names of `nearfar.modalities.image.named`."""

FAITHFUL = "clip"
"""The views of which what is said of an image stays true, for images that are a side of a pair."""


PIPELINE = "image-feature-extraction"
"""What model hubs call the task of such an encoder."""


@dataclass(frozen=True, kw_only=True)
class Settings(settings.Settings):
    """How to train."""

    encoder: str = "resnet18"
    """conv4, or the name of any timm model; biggan32, of that or another width, is the discriminator of BigGAN.
    ycbcr:NAME, or 0,1+2:NAME with numbers of channels, is such a network for each part of an image's channels, as CMC
    wants."""
    weights: str = ""
    """Weights that the encoder begins with: the folder of a run or an export, or a file (.safetensors, or of torch),
    whose network --encoder names. Size and normalization are taken over, of a file those that timm has for that name,
    such as vit_small_patch16_224.dino; --size overrides."""
    views: str = "simclr"
    """What random views are made of each image: simclr, moco_v1, moco_v2, byol, barlow, swav, supcon, sce, cmc,
    drawing, ink_drawing, colorful, sign, turned, spectrogram, looc, looc_drawing, relicv2, excon, excon_drawing, clip,
    plain, mirrored, or FILE.py:NAME of your own: a function of the side, or transforms of torchvision,
    albumentations or kornia. `nearfar views DATA` shows them."""
    set: tuple[str, ...] = ()
    """Changes of these views, NAME=VALUE, such as color=0 rotate=90 vflip=0.5; any other name tells all of them."""
    size: NonNegativeInt = 0
    """Side of the views in pixels; 0 takes the images' own up to 64, else 128, on a CPU 64."""
    crops: tuple[PositiveInt, NonNegativeInt] = (2, 0)
    """Large and small views of each image, for methods that take any number (multi-crop); 2 0 leaves all views but
    swav and relicv2 as they are. Small ones have 96 px for 224, and show 5 to 14 % of the image."""
    max_bad: UnitInterval = 0.05
    """Share of image files that may fail to decode, or be lost while training decodes them anew; --resume may change
    it."""
    white: NonNegativeFloat | Literal["measured"] = 0.0
    """The number that is white, in images of more than 8 bits a number, of floats, or of other whole numbers, such as
    4095 where 12 of 16 bits are in use; measured takes the highest there is. 0: 65535 of 16 bits; of floats 1 or 255,
    of other whole numbers 255 or 65535, as all images together show. Images of 8 bits stay as they are."""
    frames: Literal["auto", "all", "first"] = "auto"
    """Of files of several pictures: all, of which each is a sample and those of a file one group; the first alone; auto
    takes all pages of a TIFF, and the first frame of others (GIF, WebP, APNG, MPO, HEIC, AVIF)."""
    max_pixels: NonNegativeInt = 0
    """Pixels that an image may have, width x height; 0 takes Pillow's limit, 89,478,485."""

    @property
    def cropped(self) -> bool:
        """Whether large and small views are made of views that are neither `swav` nor `relicv2`."""
        return self.crops != (2, 0) and self.views not in ("swav", "relicv2")

    @property
    def start(self) -> str:
        """The folder or file of the weights that the encoder begins with; "" for random ones."""
        weights = self.weights or self.from_run
        beside = Path(weights).name == "encoder.safetensors" and Path(weights).with_name("encoder.json").is_file()
        return str(Path(weights).parent) if beside else weights

    def taken_over(self, given: Collection[str]) -> Settings:
        """The encoder and the size of the views of given weights, where the user does not set them; of large and small
        views no other number."""
        if self.cropped and self.view_count and "view_count" not in given:
            return replace(self, view_count=0).taken_over(given)
        if not self.start or (Path(self.start).is_dir() and not Path(self.start, "encoder.json").is_file()):
            return self
        if self.weights and not Path(self.start).exists():
            raise NotFound(f"--weights {self.weights!r}: there is no such file or folder")
        if Path(self.start).is_dir():
            spec = exported(self.start)
            own = {"encoder": spec["name"], "size": spec["size"]}
        elif not self.weights:
            return self
        elif "encoder" not in given:
            raise UserError(
                f"--weights {self.weights!r} does not say of which network: name it by --encoder, such as resnet50"
            )
        elif ":" in self.encoder or self.encoder == "conv4" or biggan_width(self.encoder):
            return self
        else:
            from nearfar.modalities.timm_nets import pretrained

            insist_encoder(self.encoder)
            known = pretrained(self.encoder)
            own = {} if known is None else {"size": known[0]}
        return replace(self, **{name: value for name, value in own.items() if name not in given})

    def with_views(self, views: str, count: int) -> Settings:
        return replace(self, views=views, view_count=count, set=(), crops=(2, 0))

    def check(self) -> None:
        super().check()
        settings.check_views(self.views, VIEWS)
        changes.parsed(self.set)
        if self.weights and self.from_run:
            raise UserError(
                f"--weights {self.weights!r} and --from-run {self.from_run!r}: the encoder begins with one of the two"
            )


def exported(folder: str, *, joint: bool = False) -> dict[str, Any]:
    """What builds the image encoder in the folder of a run or an export again, its name and its size among others.

    joint: whether a layer may be behind it, into a space that it shares with others.
    Raises ValueError where that folder holds another kind of encoder, or is damaged.
    """
    spec = read_json(Path(folder) / "encoder.json", "write it again by nearfar export").get("encoder")
    if not isinstance(spec, dict) or spec.get("kind") != "image" or "own" in spec or ("joint" in spec and not joint):
        found = spec.get("name", spec.get("kind")) if isinstance(spec, dict) else None
        raise UserError(
            f"{folder!r} holds {found!r}, and wanted is an image encoder of the library's own, without layers behind "
            "it: name another folder"
        )
    return spec


def biggan_width(name: str) -> int:
    """N of a network called bigganN, such as biggan32; 0 where it is called otherwise."""
    return int(name.removeprefix("biggan")) if re.fullmatch(r"biggan[1-9]\d{0,3}", name) else 0


def insist_encoder(name: str) -> None:
    """Raise ValueError where no network is called so. Of several side by side (ycbcr:NAME) it is the name of each."""
    network = name.rpartition(":")[2]
    insist_network(network, ("conv4", network) if biggan_width(network) else ("conv4", "biggan32"))


@dataclass(frozen=True, kw_only=True)
class Facts(settings.Facts):
    """What a recipe for images may go by.

    channels, side: of the images as they are kept, in pixels.  size: of the views.
    views: those that suit, by what the images are (see `nearfar.modalities.image.nature`).  why_views: in words.
    """

    channels: int = 3
    side: int = 32
    size: int = 32
    views: str = "simclr"
    why_views: str = ""


def recognizes(data: Any) -> bool:
    """Whether data are images: the drawings of the package, a folder, an archive, a list of paths, arrays, a list of
    images, a data set of images; no table, no sentences and no videos."""
    if holds_videos(data):
        return False
    if isinstance(data, tuple) and len(data) == 2:
        return recognizes(data[0])
    if isinstance(data, str | os.PathLike):
        if str(data) == DRAWINGS:
            return True
        path = Path(data)
        listed = path.suffix.lower() in SUFFIXES and not holds_sentences(path)
        return (path.is_dir() or listed) and not looks_like_table(path)
    if isinstance(data, list):
        return not (data and isinstance(data[0], Mapping | list | tuple | int | float)) and not holds_sentences(data)
    features = getattr(data, "features", None)
    if isinstance(features, Mapping):  # a datasets.Dataset
        return any(type(feature).__name__ == "Image" for feature in features.values())
    if hasattr(data, "columns") or isinstance(data, Mapping):
        return False
    return hasattr(data, "__getitem__") and hasattr(data, "__len__")


def study_encoder() -> str:
    """The network on which methods are compared, where none is named: one that is quick on a CPU."""
    return "conv4"


def recipe_for(data: Any) -> str:
    """The recipes of papers that suit the data: photos (folders, archives, lists) or small_images (arrays); of the
    drawings in the package the recipes drawings."""
    if isinstance(data, str | os.PathLike) and str(data):
        if str(data) == DRAWINGS:
            return "drawings"
        path = Path(data)
        return (
            "photos"
            if path.is_dir() or path.suffix.lower() in (".txt", ".csv", ".tar", ".parquet", ".pq")
            else "small_images"
        )
    return "small_images"


def measured_for(data: Any) -> str:
    """The recipes that were chosen by measurement; the drawings in the package have recipes of their own."""
    return "" if isinstance(data, str | os.PathLike) and str(data) == DRAWINGS else "measured_images"
