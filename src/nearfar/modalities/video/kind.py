"""Videos as a kind of data: opened, and turned into clips, as the settings of a run say."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor
from torch.nn import functional as F

from nearfar.batch import MISSING
from nearfar.data.labels import LabelColumn
from nearfar.data.samples import Samples
from nearfar.data.tiles import Thumbnails, Tiles
from nearfar.errors import UserError
from nearfar.files import load_function
from nearfar.looking.features import laid_over
from nearfar.looking.parts import Parts
from nearfar.looking.similarity import similarity_map
from nearfar.machine import pick_device
from nearfar.method import Encoder
from nearfar.modalities import kind
from nearfar.modalities.examination import Advice, Examination
from nearfar.modalities.image.kind import ImageKind
from nearfar.modalities.image.sheet import contact_sheet, image_grid
from nearfar.modalities.image.sources import insist_path, root_of
from nearfar.modalities.image.views import Views
from nearfar.modalities.recognize import VIDEOS
from nearfar.modalities.video import doctor, named, settings
from nearfar.modalities.video import views as clips
from nearfar.modalities.video.encoder import VideoEncoder, example, from_spec, video_encoder
from nearfar.modalities.video.samples import Videos, open_videos
from nearfar.modalities.video.settings import Facts, Settings
from nearfar.modalities.video.views import ClipViews, Draws

MOMENTS = 300
"""Frames of a video, at most, that are aligned with those of another camera."""


class VideoKind(kind.Kind):
    """Files of video, folders of frames, and arrays."""

    noun = "videos"
    raw_name = "raw pixels"
    frames = True
    read = kind.Kind.read | {"size", "max_bad", "fps"}
    Settings = Settings
    Facts = Facts
    entry = settings

    def recipe_facts(self, samples: Videos, settings: Settings, given: Mapping[str, Any]) -> Facts:
        return Facts(size=view_size(settings, samples.side), **self.common_facts(samples, settings, given))

    def cheaper(self, settings: Settings, samples: Videos) -> Advice | None:
        """Views of half the side, from 64 px on."""
        size = view_size(settings, samples.side)
        return Advice("size", size // 2, f"less than {size} px") if size >= 64 else None

    def insist_settings(self, settings: Settings) -> None:
        if ".py" in settings.views:
            load_function(settings.views, "--views")
        self.insist_encoder(settings.encoder)
        if settings.size and settings.pooling == "softargmax":
            self._build(settings, settings.size)  # a network without maps says so

    def view_count(self, settings: Settings) -> int | None:
        return None if ".py" in settings.views else settings.view_count or 2

    def columns(self, data: Any) -> list[str] | None:
        if isinstance(data, str | os.PathLike):
            insist_path(Path(data))
            if Path(data).suffix.lower() in VIDEOS:
                settings.insist_av()
                return []
        return ImageKind().columns(data)

    def open(self, data: Any, settings: Settings) -> Videos:
        return open_videos(
            data,
            labels=settings.named_labels,
            label_column=settings.label_column,
            size=settings.size or largest(settings),
            max_bad=settings.max_bad,
            fps=settings.fps,
            keep=settings.keep_words,
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
    ) -> Videos:
        return open_videos(
            data,
            labels=labels,
            label_column=column,
            side=facts["side"],
            max_bad=1.0 if lenient else settings.max_bad,
            fps=facts["fps"],
            keep=settings.keep_words,
        )

    def from_columns(self, columns: Mapping[str, Sequence[Any]], split: Sequence[str], root: Path | None) -> Any:
        """Paths, relative to the table's folder."""
        return [str(Path(root or "", item)) for item in super().from_columns(columns, split, root)]

    def entries(self, samples: Samples, data: Any) -> list[int]:
        return ImageKind().entries(samples, data)

    def is_sample(self, path: str | Path) -> bool:
        return Path(path).suffix.lower() in VIDEOS

    def open_files(self, files: list[str], run: Any) -> Videos:
        return run.open(files, lenient=True)

    def root(self, data: Any) -> Path | None:
        return root_of(Path(data)) if isinstance(data, str | Path) else None

    def facts(self, samples: Videos, settings: Settings) -> dict[str, Any]:
        """The side of the stored squares and of the views, and which frames a clip has."""
        return {
            "channels": 3,
            "side": samples.side,
            "size": view_size(settings, samples.side),
            "frames": settings.clip_frames,
            "stride": settings.stride,
            "fps": settings.fps,
        }

    def encoder(self, samples: Videos, settings: Settings, facts: dict[str, Any]) -> VideoEncoder:
        """The encoder that the settings name, behind a normalization measured on the data."""
        mean, std = doctor.pixel_statistics(samples)
        return self._build(settings, facts["size"], mean=mean, std=std)

    def _build(self, settings: Settings, size: int, **measured: Sequence[float]) -> VideoEncoder:
        return video_encoder(
            settings.encoder,
            frames=settings.clip_frames,
            size=size,
            stride=settings.stride,
            fps=settings.fps,
            over_time=settings.over_time,
            pooling=settings.pooling,
            **measured,  # pyright: ignore[reportArgumentType]
        )

    def encoder_from_spec(self, spec: dict[str, Any]) -> VideoEncoder:
        return from_spec(spec)

    def inputs(self, samples: Videos, facts: dict[str, Any]) -> dict[str, Any]:
        return {key: facts[key] for key in ("frames", "stride", "fps", "size")}

    def example(self, spec: dict[str, Any], n: int, generator: torch.Generator | None = None) -> Tensor:
        return example(spec, n, generator)

    def views(self, samples: Videos, settings: Settings, facts: dict[str, Any]) -> ClipViews:
        """The clips that the settings name. A function of the user's own gets the side, and gives views of images."""
        own = ".py" in settings.views
        space: Views = (load_function(settings.views, "--views") if own else getattr(named, settings.views))(
            facts["size"]
        )
        return ClipViews(
            space.repeated(settings.view_count) if settings.view_count else space,
            frames=facts["frames"],
            stride=facts["stride"],
            power=settings.power,
            consistent=settings.consistent,
            frame_colors=settings.frame_colors,
            moments=settings.views == "tcn",
        )

    def mild_views(self, settings: Settings) -> str:
        """Crops without mirror images, and mild colors."""
        return "tcn"

    @torch.no_grad()
    def insist_fitting(self, encoder: Any, views: Any) -> None:
        """Raise ValueError where a clip is too small for the encoder, or it cannot tell motion."""
        try:
            encoder.eval()(encoder.example(1))
        except RuntimeError as error:
            frames, size = encoder.spec["frames"], encoder.spec["size"]
            raise UserError(
                f"{encoder.spec['name']!r} cannot take clips of {frames} frames of {size} px "
                f"({str(error).splitlines()[0]}): give a larger --size"
            ) from error
        finally:
            encoder.train()

    def plain(self, encoder: Any) -> ClipViews:
        """The clip in the middle of each video, and of its frames the middle square."""
        return clips.plain(*(encoder.spec[key] for key in ("size", "frames", "stride")))

    def raw(self, samples: Videos, index: Tensor, encoder: Any) -> Tensor:
        """Pixels of the clip in the middle, at 16 px at most."""
        plain = clips.plain(min(16, encoder.spec["size"]), encoder.spec["frames"], encoder.spec["stride"])
        return kind.plain_view(plain, samples, index, torch.device("cpu")).flatten(1)

    def events(self, samples: Videos) -> list[list[int]]:
        """The cameras of each sequence that has several."""
        numbers = samples.sequence[samples.sequence != MISSING].unique().tolist()
        rows = [(samples.sequence == number).nonzero()[:, 0].tolist() for number in numbers]
        return [cameras for cameras in rows if len(cameras) > 1]

    def moments(self, samples: Videos, i: int, encoder: Any) -> Tensor:
        """Each frame as a clip of its own, or as many as MOMENTS, evenly apart: T x 1 x 3 x size x size."""
        same = min(samples.films[k].length for k in self._event(samples, i))
        which = torch.linspace(0, same - 1, min(same, MOMENTS)).round().long().tolist()
        one = clips.plain(encoder.spec["size"], 1, 1)
        frames = samples.read([(i, [t]) for t in which])
        return one(frames, samples.aspect[[i] * len(which)][:, None])[0]

    def _event(self, samples: Videos, i: int) -> list[int]:
        return (samples.sequence == samples.sequence[i]).nonzero()[:, 0].tolist()

    def describe(self, facts: dict[str, Any]) -> str:
        return f"of {facts['frames']} frames at {facts['size']} px"

    def sheet(self, samples: Videos, views: ClipViews, index: Tensor, draws: Draws) -> Image:
        """A contact sheet: of each video the frame in the middle, and four frames of each of its clips."""
        names = [samples.names[i] for i in index.tolist()]
        shown = _Mosaics(views, views.read(*samples.fetch(index), draws))
        return contact_sheet(samples.middle(index), samples.aspect[index], shown, draws, names)  # pyright: ignore[reportArgumentType]

    def grid(self, samples: Videos, index: Tensor, captions: list[str]) -> Image:
        """The frame in the middle of each video, over its caption."""
        return image_grid(samples.middle(index), samples.aspect[index], captions)

    def pictures(self, encoder: Any, view: Tensor) -> Tensor:
        """Four frames of each clip, from first to last, as one square."""
        return _square(view[:, _four(view.shape[1])].detach().cpu().clamp(0, 1))

    def similar_parts(self, encoder: Encoder, view: Tensor, target: Tensor) -> list[Parts]:
        """The same frames under their maps."""
        n, frames = view.shape[:2]
        cam = similarity_map(encoder, encoder.looked_at(), view, target)
        cam = cam.unflatten(0, (n, frames)) if len(cam) == n * frames else cam  # N x T x H x W
        cam = F.interpolate(cam[:, None], (frames, *view.shape[3:]), mode="trilinear")[:, 0, _four(frames)]
        square = _square(cam[:, :, None].expand(-1, -1, 3, -1, -1))[:, 0]
        return [Parts(picture=one) for one in laid_over(self.pictures(encoder, view), square)]

    def tiles(self, samples: Videos) -> Tiles:
        """The frame in the middle, in its true proportions."""
        return Tiles(
            face=Thumbnails(pixels=samples.middle, aspect=samples.aspect),
            names=samples.names,
            label=samples.label,
            classes=samples.classes,
            noun="video",
            plural="videos",
            copies="Videos count as copies where their files are the same.",
        )

    def method_advice(self, samples: Samples) -> Advice:
        advice = super().method_advice(samples)
        return advice if advice.value != "simclr" else Advice("method", "cvrl", advice.reason)

    def examine(self, samples: Videos, settings: Settings) -> Examination:
        return doctor.examine(samples, (settings.clip_frames - 1) * settings.stride + 1)


class _Mosaics:
    """Clips as pictures of four of their frames each, for a sheet of images."""

    def __init__(self, views: ClipViews, inputs: tuple[Tensor, ...]) -> None:
        self.made, self.inputs, self.views = views, inputs, views.space.views

    def __call__(self, pixels: Tensor, aspect: Tensor, draws: Draws) -> list[Tensor]:
        return [mosaic(clip) for clip in self.made(*self.inputs, draws=draws)]


def mosaic(clip: Tensor) -> Tensor:
    """Four frames of each clip as one picture: N x T x C x H x W -> N x C x 2H x 2W."""
    some = clip[:, torch.linspace(0, clip.shape[1] - 1, 4).round().long()]
    return torch.cat([torch.cat([some[:, k], some[:, k + 1]], 3) for k in (0, 2)], 2)


def largest(settings: Settings) -> int:
    """The side of the views, in pixels, where videos are larger and none is set: a CPU has no time for more than 64."""
    return 64 if pick_device(settings.device).type == "cpu" else 128


def view_size(settings: Settings, side: int) -> int:
    """The side of the views: as set, or the stored side up to 64 px, else the largest."""
    return settings.size or (side if side <= 64 else largest(settings))


def _four(frames: int) -> list[int]:
    return torch.linspace(0, frames - 1, 4).round().long().tolist()


def _square(frames: Tensor) -> Tensor:
    """Four frames as one picture: N x 4 x C x H x W -> N x C x 2H x 2W."""
    return frames.unflatten(1, (2, 2)).permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
