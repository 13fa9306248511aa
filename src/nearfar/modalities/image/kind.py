"""Images as a kind of data: opened, measured, and turned into views, as the settings of a run say."""

from __future__ import annotations

import dataclasses
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor, nn

from nearfar.data import csv
from nearfar.data.cells import LabelCells
from nearfar.data.labels import LabelColumn
from nearfar.data.samples import Samples
from nearfar.data.tiles import Thumbnails, Tiles
from nearfar.errors import NotFound, UserError
from nearfar.files import load_named, name_text
from nearfar.machine import pick_device
from nearfar.modalities import kind
from nearfar.modalities.examination import Advice, Copies, Examination, Meaning
from nearfar.modalities.image import doctor, named, settings
from nearfar.modalities.image import views as image_views
from nearfar.modalities.image.changes import changed
from nearfar.modalities.image.drawings import drawings
from nearfar.modalities.image.duplicates import duplicates
from nearfar.modalities.image.encoder import ImageEncoder, example, from_spec, image_encoder, inputs
from nearfar.modalities.image.foreign import own_views, tried
from nearfar.modalities.image.kept import meaning
from nearfar.modalities.image.nature import nature
from nearfar.modalities.image.networks import build
from nearfar.modalities.image.samples import Images, open_images
from nearfar.modalities.image.settings import DRAWINGS, Facts, Settings, biggan_width
from nearfar.modalities.image.sheet import contact_sheet, image_grid, image_rows, picture
from nearfar.modalities.image.sources import (
    IMAGES,
    LABELS,
    SUFFIXES,
    insist_path,
    listed_cells,
    listed_names,
    root_of,
)
from nearfar.modalities.image.start import insist_started, started
from nearfar.modalities.image.views import Draws, Views
from nearfar.modalities.image.whole import Whole
from nearfar.nn.weights import read_weights
from nearfar.settings import GIVEN


class ImageKind(kind.Kind):
    """Folders, archives, lists, arrays and tables of images."""

    noun = "images"
    allows = frozenset({"mixed", "numbers", "images"})
    raw_name = "raw pixels"
    pixels = True
    read = kind.Kind.read | {"size", "max_bad", "white", "frames", "max_pixels"}
    Settings = Settings
    Facts = Facts
    entry = settings

    def recipe_facts(self, samples: Images, settings: Settings, given: Mapping[str, Any]) -> Facts:
        size = view_size(settings, samples.side)
        common = self.common_facts(samples, settings, given)
        own: dict[str, Any] = {"channels": samples.channels, "side": samples.side, "size": size}
        if "views" not in given:
            views, reasons = self.suited_views(samples)
            own |= {"views": views, "why_views": "; ".join(reasons)}
        return Facts(**common, **own)

    def cheaper(self, settings: Settings, samples: Images) -> Advice | None:
        """Views of half the side, from 64 px on."""
        size = view_size(settings, samples.side)
        return Advice("size", size // 2, f"less than {size} px") if size >= 64 else None

    @torch.no_grad()
    def insist_settings(self, settings: Settings) -> None:
        """Also where the network takes no images of the sizes of the views, if one is set."""
        if (settings.start and Path(settings.start, "encoder.json").is_file()) or settings.weights:
            insist_started(settings)
        if ".py" in settings.views:
            load_named(settings.views, "--views")
        elif settings.views.startswith(GIVEN):
            pass
        elif settings.size and ":" not in settings.encoder:
            views = named_views(settings, settings.size)
            sides = {settings.size, *(view.size for view in views.views)}
            if settings.encoder == "conv4" or not _takes(settings.encoder, sides, settings.size):
                self.insist_fitting(image_encoder(settings.encoder, size=settings.size), views)

    def view_count(self, settings: Settings) -> int | None:
        if ".py" in settings.views or settings.views.startswith(GIVEN):
            return None
        return len(named_views(settings, settings.size or 128))

    def columns(self, data: Any) -> list[str] | None:
        """Of a list or a table those of its header; of a .npz file its other arrays; of all other paths none."""
        if not isinstance(data, str | os.PathLike):
            return None
        path, suffix = Path(data), Path(data).suffix.lower()
        if str(data) == DRAWINGS:
            return None
        insist_path(path)
        if path.is_file() and suffix in (".csv", ".parquet", ".pq"):
            names = csv.header(path)
            return names if suffix != ".csv" or csv.column(names, "path") else []
        if path.is_file() and suffix == ".npz":
            try:
                with zipfile.ZipFile(path) as file:
                    held = {name.removesuffix(".npy") for name in file.namelist()}
            except (OSError, zipfile.BadZipFile):
                return None
            return [*sorted(held - set(IMAGES)), *(["label"] if held & set(LABELS) else [])]
        return []

    def open(self, data: Any, settings: Settings, side: int | None = None) -> Images:
        """The data of a run. side: of the stored squares, in pixels."""
        if isinstance(data, Images):
            return data
        if isinstance(data, str) and data == DRAWINGS:  # an array would compare each of its numbers
            LabelColumn.of(settings.label_column).find((), f"'{data}'")
            return drawings("train")
        return open_images(
            data,
            labels=settings.named_labels,
            label_column=settings.label_column,
            side=side,
            size=settings.size or largest(settings),
            max_bad=settings.max_bad,
            white=settings.white or None,
            keep=settings.keep_words,
            frames=settings.frames,
            max_pixels=settings.max_pixels or None,
        )

    def open_as(
        self,
        data: Any,
        facts: dict[str, Any],
        settings: Settings,
        *,
        labels: Any,
        column: LabelColumn,
        lenient: bool = False,
    ) -> Images:
        if isinstance(data, Images):
            return data.of_channels(facts["channels"])
        if isinstance(data, str) and data == DRAWINGS:
            column.find((), f"'{data}'")
            return drawings("train").of_channels(facts["channels"])
        images = open_images(
            data,
            labels=labels,
            label_column=column,
            side=facts["side"],
            max_bad=1.0 if lenient else settings.max_bad,
            white=facts["whites"],
            frames=settings.frames,
            max_pixels=settings.max_pixels or None,
            keep=settings.keep_words,
        )
        return images.of_channels(facts["channels"])

    def from_columns(self, columns: Mapping[str, Sequence[Any]], split: Sequence[str], root: Path | None) -> Any:
        """Paths, relative to the table's folder; or encoded images, arrays or images of PIL."""
        items: list[Any] = super().from_columns(columns, split, root)
        # As the datasets library writes them, an image is its bytes, or else its path.
        items = [item.get("bytes") or item.get("path") if isinstance(item, Mapping) else item for item in items]
        paths = all(isinstance(item, str | os.PathLike) for item in items)
        return [str(Path(root or "", item)) for item in items] if paths else items

    def entries(self, samples: Samples, data: Any) -> list[int]:
        """A page of a file is of the entry that names the file."""
        if not isinstance(data[0], str):
            return super().entries(samples, data)
        place = {name: i for i, name in enumerate(listed_names(data))}
        return [place[name if name in place else name.rpartition("#")[0]] for name in samples.names]

    def given_weights(self, settings: Settings) -> str:
        return settings.start

    def several(self, settings: Settings) -> bool:
        return ":" in settings.encoder

    def mapped(self, settings: Settings) -> bool:
        return not (self.several(settings) or biggan_width(settings.encoder))

    def is_sample(self, path: str | Path) -> bool:
        return Path(path).suffix.lower() in SUFFIXES

    def open_files(self, files: list[str], run: Any) -> Images:
        """Images, named as the files are given; a page of a file has a number behind the file's name."""
        given = dict(zip(listed_names(files), map(name_text, files), strict=True))
        images = run.open(files, lenient=True)

        def as_given(name: str) -> str:
            file, mark, page = (name, "", "") if name in given else name.rpartition("#")
            return given[file] + mark + page

        return dataclasses.replace(
            images,
            names=[as_given(name) for name in images.names],
            skipped=[(as_given(name), why) for name, why in images.skipped],
        )

    def facts(self, samples: Images, settings: Settings) -> dict[str, Any]:
        """Channels, the side of the stored squares, and the side of the views; what numbers were scaled by."""
        size = view_size(settings, samples.side)
        return {"channels": samples.channels, "side": samples.side, "size": size, "whites": dict(samples.whites)}

    def encoder(self, samples: Images, settings: Settings, facts: dict[str, Any]) -> ImageEncoder:
        """The encoder that the settings name, behind a normalization measured on the data, or that of its weights."""
        mean, std = pixel_statistics(samples)
        if settings.start:
            return started(settings, facts["size"], samples.channels, (mean, std))
        return image_encoder(settings.encoder, channels=samples.channels, size=facts["size"], mean=mean, std=std)

    def encoder_from_spec(self, spec: dict[str, Any]) -> ImageEncoder:
        return from_spec(spec)

    def inputs(self, samples: Images, facts: dict[str, Any]) -> dict[str, Any]:
        return inputs(samples, facts)

    def example(self, spec: dict[str, Any], n: int, generator: torch.Generator | None = None) -> Tensor:
        return example(spec, n, generator)

    def views(self, samples: Images, settings: Settings, facts: dict[str, Any]) -> Views:
        if ".py" in settings.views:
            return self.own_views(load_named(settings.views, "--views"), samples, settings, facts)
        return named_views(settings, facts["size"])

    def own_views(self, given: Any, samples: Images, settings: Settings, facts: dict[str, Any]) -> Views:
        """Also transforms of torchvision, albumentations and kornia, a list of some, or a function that gives them."""
        views = own_views(given, facts["size"], settings.view_count, settings.views)
        if isinstance(views, Views):
            return laid_out(views, settings)
        if settings.set or settings.cropped:
            flag = "--set" if settings.set else "--crops"
            raise UserError(f"{flag} changes views of nearfar, and --views {settings.views} are others: leave it out")
        return tried(views, samples, facts["size"], settings.views)

    def suited_views(self, samples: Images) -> tuple[str, list[str]]:
        found = nature(samples)
        return found.views, found.reasons

    def mild_views(self, settings: Settings) -> str:
        """Crop and flip; for drawings a mild map."""
        return "drawing" if settings.views.endswith("drawing") else "cmc"

    @torch.no_grad()
    def insist_fitting(self, encoder: Any, views: Any) -> None:
        """Raise ValueError where a view is too small for the encoder."""
        channels, size, name = (encoder.spec[key] for key in ("channels", "size", "name"))
        for side in sorted({view.size for view in views.views} - {size}):
            try:
                encoder.eval()(torch.zeros(1, channels, side, side))
            except RuntimeError as error:
                reason = str(error).splitlines()[0]
                raise UserError(f"{name!r} cannot take views of {side} px ({reason}): give a larger --size") from error

    def plain(self, encoder: Any) -> Views:
        """The middle of each image."""
        return image_views.plain(encoder.spec["size"])

    @torch.no_grad()
    def whole_facts(self, encoder: Any, side: int) -> dict[str, Any]:
        """The side of the stored squares: that of transformers is their own."""
        device = next(encoder.parameters()).device
        encoder.maps(encoder.example(1).to(device))  # or an error: it has none
        try:
            encoder.maps(torch.zeros(1, encoder.spec["channels"], side, side, device=device))
        except Exception:  # whatever a stranger's network makes of a side that is not its own
            return {"side": encoder.spec["size"]}
        return {"side": side}

    def whole(self, samples: Images, encoder: Any) -> Whole:
        return Whole(samples, samples.side, tuple(encoder.spec.get("mean") or [0.5] * samples.channels))

    def raw(self, samples: Images, index: Tensor, encoder: Any) -> Tensor:
        """Pixels, at 32 px at most."""
        plain = image_views.plain(min(32, encoder.spec["size"]))
        return kind.plain_view(plain, samples, index, torch.device("cpu")).flatten(1)

    def off_the_shelf(self, network: str, weights: str, samples: Images | None) -> tuple[nn.Module, Views]:
        """A timm network, and the views that it takes: of its own size, gray images as three equal channels.

        samples: None where they are not open yet.
        Raises FileNotFoundError or ValueError where the weights are not its own, or the images have other channels.
        """
        if not Path(weights).is_file():
            raise NotFound(f"--weights {weights!r}: there is no such file")
        settings.insist_encoder(network)
        read_weights(Path(weights))  # or an error, before timm is imported
        from timm import get_pretrained_cfg

        if samples is not None and samples.channels not in (1, 3):
            raise UserError(
                f"--weights {weights!r} are for color images, and these have {samples.channels} channels: leave it out"
            )
        cfg = get_pretrained_cfg(network, allow_unregistered=True)
        size = cfg.input_size[-1] if cfg is not None else 224
        mean, std = (None, None) if cfg is None else (cfg.mean, cfg.std)
        encoder = image_encoder(network, size=size, mean=mean, std=std, small_stem=False, weights=weights).eval()
        plain = image_views.plain(size)
        return (encoder if samples is None or samples.channels == 3 else nn.Sequential(_Thrice(), encoder)), plain

    def describe(self, facts: dict[str, Any]) -> str:
        return f"at {facts['size']} px"

    def sheet(self, samples: Images, views: Views, index: Tensor, draws: Draws) -> Image:
        """A contact sheet of some images and their views."""
        return contact_sheet(*samples.fetch(index), views, draws, [samples.names[i] for i in index.tolist()])

    def meaning(self, samples: Images, several: dict[str, Any], seed: int) -> Meaning:
        """By their nearest others, in gradients and colors."""
        return meaning(samples, several, seed)

    def grid(self, samples: Images, index: Tensor, captions: list[str]) -> Image:
        """Some images, each over its caption."""
        return image_grid(samples.pixels(index).cpu(), samples.aspect[index], captions)

    def pictures(self, encoder: Any, view: Tensor) -> Tensor:
        """Images as they are seen; of other than three channels the first three, or the first as gray."""
        shown = view[:, :3] if view.shape[1] >= 3 else view[:, :1].expand(-1, 3, -1, -1)
        return shown.detach().cpu().clamp(0, 1)

    def picture(self, pixels: Tensor) -> Image:
        """One image, C x H x W, uint8."""
        return picture(pixels)

    def rows(self, rows: Sequence[tuple[str, Tensor]]) -> Image:
        """Rows of images, each under its caption."""
        return image_rows(rows)

    def copies(self, samples: Images) -> Copies:
        """Images that are the same, or nearly."""
        return duplicates(samples)

    def root(self, data: Any) -> Path | None:
        return root_of(Path(data)) if isinstance(data, str | Path) and data != DRAWINGS else None

    def cells(self, data: Any, settings: Settings, samples: Samples) -> LabelCells:
        """As for any kind; where no table of labels is named, what the columns of a list of images say."""
        if settings.labels != "" or not isinstance(data, str | Path):
            return super().cells(data, settings, samples)
        return listed_cells(Path(data), samples)

    def tiles(self, samples: Images) -> Tiles:
        """Thumbnails in their true proportions."""
        return Tiles(
            face=Thumbnails(pixels=samples.pixels, aspect=samples.aspect),
            names=samples.names,
            label=samples.label,
            classes=samples.classes,
            noun="image",
            plural="images",
            copies="Images count as copies also at another size, quality or brightness.",
        )

    def examine(self, samples: Images, settings: Settings) -> Examination:
        return doctor.examine(samples)


def _takes(name: str, sides: set[int], size: int) -> bool:
    """Whether a network of timm for images of `size` px takes those of all these sides; if in doubt, no."""
    try:
        with torch.device("meta"):  # so that no time goes into weights that nobody needs
            net = build.build(name, channels=3, size=size, small_stem=None, std=()).net
        net = net.to_empty(device="cpu").eval()
        return all(net(torch.zeros(1, 3, side, side)).dim() == 2 for side in sides)
    except Exception:  # whatever a stranger's network makes of it
        return False


class _Thrice(nn.Module):
    """One channel as three equal ones."""

    def forward(self, x: Tensor) -> Tensor:
        return x.expand(-1, 3, -1, -1)


def largest(settings: Settings) -> int:
    """The side of the views, in pixels, where images are larger and none is set: a CPU has no time for more than 64."""
    return 64 if pick_device(settings.device).type == "cpu" else 128


def view_size(settings: Settings, side: int) -> int:
    """The side of the views: as set, or the stored side up to 64 px, else the largest."""
    return settings.size or (side if side <= 64 else largest(settings))


def named_views(settings: Settings, size: int) -> Views:
    """The views of that side that the settings name. Raises ValueError for those of another kind of data."""
    if settings.views.startswith(GIVEN):
        raise UserError(
            f"the views {settings.views.removeprefix(GIVEN)!r} were given in Python, as an object that no file "
            "holds: give them there again, by views=, or write them into a file, --views FILE.py:NAME"
        )
    make = getattr(named, settings.views, None)
    if make is None:
        raise UserError(f"--views {settings.views!r} is not for images: `nearfar views DATA` shows those that are")
    views = make(size, crops=settings.crops) if settings.views in ("swav", "relicv2") else make(size)
    return laid_out(views, settings)


def laid_out(views: Views, settings: Settings) -> Views:
    """The views with the changes that the settings have, and in the number that they have."""
    views = changed(views, settings.set, settings.views)
    if settings.view_count and settings.cropped:
        raise UserError(
            f"--view-count {settings.view_count} and --crops {settings.crops[0]} {settings.crops[1]}: both say how "
            "many views there are; leave one out"
        )
    if settings.cropped:
        return named.multi_crop(views, *settings.crops)
    return views.repeated(settings.view_count) if settings.view_count else views


def pixel_statistics(data: Images, most: int = 2000) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, in units of [0, 1], over some samples."""
    some = torch.linspace(0, len(data) - 1, min(most, len(data))).long()
    pixels = data.pixels(some).cpu()
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in pixels.unbind(1)])  # C x 256
    share, level = counts / counts.sum(1, keepdim=True).double(), torch.arange(256, dtype=torch.float64) / 255
    mean, square = share @ level, share @ level.square()
    std = (square - mean.square()).clamp(min=1e-4).sqrt()
    return [round(v, 4) for v in mean.tolist()], [round(v, 4) for v in std.tolist()]
