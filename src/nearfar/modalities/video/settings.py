"""What can be set about training on videos, and which data are videos. Free of torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from nearfar import settings
from nearfar.errors import NotInstalled, UserError
from nearfar.modalities.image import settings as image
from nearfar.modalities.recognize import has_folders, holds_videos
from nearfar.ranges import NonNegativeFloat, NonNegativeInt, PositiveInt, UnitInterval

VIEWS = ("cvrl", "cvrl_released", "motion", "tcn")
"""The names of `nearfar.modalities.video.named`."""

FAITHFUL = "motion"
"""The views of which what is said of a video stays true, for videos that are a side of a pair."""

CLIP_NETWORKS = ("r3d_18", "mc3_18", "r2plus1d_18")
"""Networks of torchvision that take clips."""

OverTime = Literal["mean", "attention", "conv"]
Pooling = Literal["network", "softargmax"]


@dataclass(frozen=True, kw_only=True)
class Settings(settings.Settings):
    """How to train."""

    encoder: str = "r3d_18"
    """r3d_18, mc3_18 or r2plus1d_18 of torchvision; slow18 or slow50, the slow-only network of CVRL, slow18x16 with
    another width than 64; or a network of images for each frame, conv4 or the name of any timm model, with
    --over-time."""
    over_time: OverTime = "mean"
    """How what a network of images makes of the frames becomes one row: their mean, which knows no order; attention, a
    layer of a transformer; or conv, convolutions over time."""
    pooling: Pooling = "network"
    """How such a network makes a row of the map of a frame: as it does by itself, or softargmax, the place of each
    channel (spatial soft-argmax, for where things are)."""
    views: str = "cvrl"
    """What random views are made of each video: cvrl, two clips, crops and colors; cvrl_released, with the unequal blur
    of the released code; motion, without mirror images; tcn, the same moments twice, of two cameras where there are
    some; or FILE.py:FUNCTION. `nearfar views DATA` shows them."""
    consistent: bool = True
    """Crop and recolor all frames of a clip alike; --no-consistent draws anew for each frame."""
    frame_colors: bool = False
    """Recolor each frame anew, though all are cropped alike, so that colors tell nothing of which video a frame is of,
    nor of how it moves; as DPC does."""
    clip_frames: PositiveInt = 8
    """Frames of a clip; 16 in CVRL."""
    stride: PositiveInt = 2
    """Frames of the video from one frame of a clip to the next."""
    power: NonNegativeFloat = 1.0
    """Near clips are paired more often than distant ones: the density of their distance falls as (1 - distance /
    largest) ** power; 0 is uniform."""
    fps: NonNegativeFloat = 0.0
    """Frames a second that are taken of each file, by their times; 0 takes every frame, whatever its rate."""
    size: NonNegativeInt = 0
    """Side of the views in pixels; 0 takes the videos' own up to 64, else 128, on a CPU 64."""
    max_bad: UnitInterval = 0.05
    """Share of videos that may fail to be read, or be lost during training; --resume may change it."""

    def check(self) -> None:
        super().check()
        settings.check_views(self.views, VIEWS)
        if network_of_clips(self.encoder) and (self.over_time, self.pooling) != ("mean", "network"):
            raise UserError(
                f"--over-time and --pooling are for a network of images such as conv4, and {self.encoder!r} sees whole "
                "clips: leave them out"
            )


def slow(name: str) -> tuple[int, int] | None:
    """Layers and width of a slow-only network, from its name; None for any other name."""
    found = re.fullmatch(r"slow(18|50)(?:x([1-9][0-9]*))?", name)
    return (int(found[1]), int(found[2] or 64)) if found else None


def network_of_clips(name: str) -> bool:
    """Whether a network sees whole clips, and not one frame after the other."""
    return name in CLIP_NETWORKS or slow(name) is not None


def insist_encoder(name: str) -> None:
    """Raise ValueError where no network is called so."""
    if network_of_clips(name):
        return
    if ":" in name:
        raise UserError(f"--encoder {name!r}: several networks side by side are for images")
    try:
        image.insist_encoder(name)
    except UserError as error:
        own = ", ".join((*CLIP_NETWORKS, "slow18", "slow50", "slow18x16"))
        raise UserError(f"{error}; networks of clips are {own}") from error


def insist_av() -> None:
    """Raise ModuleNotFoundError where what reads files of videos is missing."""
    if find_spec("av") is None:
        raise NotInstalled("files of videos take PyAV, which is not installed: pip install 'nearfar[video]'")


def recognizes(data: Any) -> bool:
    """Whether data are videos, or folders that may be the frames of one each."""
    return hasattr(data, "films") or holds_videos(data) or has_folders(data)


@dataclass(frozen=True, kw_only=True)
class Facts(settings.Facts):
    """What a recipe for videos may go by. size: of the views, in pixels."""

    size: int = 64


def study_encoder() -> str:
    """The network on which methods are compared, where none is named: one that is quick on a CPU."""
    return "slow18x16"


def recipe_for(data: Any) -> str:
    """The recipes of papers that suit the data."""
    return "clips"


def measured_for(data: Any) -> str:
    """The recipes that were chosen by measurement: there are none yet."""
    return ""
