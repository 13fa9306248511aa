"""An encoder that begins with given weights: of a run or an export of ours, or a file of another library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from nearfar.errors import UserError
from nearfar.files import insist_digest, read_json
from nearfar.modalities import timm_nets
from nearfar.modalities.image.encoder import ImageEncoder, image_encoder
from nearfar.modalities.image.networks import build
from nearfar.modalities.image.settings import Settings, exported
from nearfar.nn.weights import fill, find_weights


def started(
    settings: Settings, size: int, channels: int = 0, measured: tuple[list[float], list[float]] | None = None
) -> ImageEncoder:
    """The encoder with the weights that the settings name, and with the normalization that belongs to them.

    size: of the views.  channels: of the images; 0 for those that the weights are for.
    measured: mean and deviation of the images, for weights of which nobody knows what they want.
    Raises ValueError where the weights are of another network or of other channels, FileNotFoundError.
    """
    name, flag = settings.encoder, f"--{'weights' if settings.weights else 'from-run'} {settings.start!r}"
    folder = Path(settings.start)
    spec = {} if not folder.is_dir() else _exported(flag, settings)
    path = folder / "encoder.safetensors" if spec else folder
    plain = build.build(name, channels=3, size=size, small_stem=spec.get("small_stem", False), std=(1.0,) * 3).net
    try:
        found = find_weights(plain, path, partial(timm_nets.converted, plain))
    except UserError as error:
        raise UserError(f"{flag}: {error}") from error
    if "joint" in spec:
        found = replace(found, left=[])
    first = next(key for key, value in found.entries.items() if value.dim() == 4)
    takes = spec.get("channels", found.entries[first].shape[1])
    if channels and takes != channels:
        remedy = "convert the images to color" if (takes, channels) == (3, 1) else f"give images of {takes} channels"
        raise UserError(f"{flag} is for images of {takes} channels, and these have {channels}: {remedy}")
    known = None if spec else timm_nets.pretrained(name)
    mean, std = (spec["mean"], spec["std"]) if spec else known[1:] if known and takes == 3 else measured or (None, None)
    small = spec.get(
        "small_stem", timm_nets.is_resnet(plain) and first == "conv1.weight" and found.entries[first].shape[-1] == 3
    )
    encoder = image_encoder(name, channels=takes, size=size, mean=mean, std=std, small_stem=small)
    try:
        notes = fill(encoder.net, found)
    except UserError as error:
        raise UserError(f"{flag}, --encoder {name}, --size {size}: {error}") from error
    whose = (
        "they were trained with" if spec else f"of timm's {name}" if known and takes == 3 else "measured on the data"
    )
    notes.append(
        f"Views are of {size} px (--size), and pixels are normalized by the mean {_numbers(encoder.spec['mean'])} and "
        f"the deviation {_numbers(encoder.spec['std'])} {whose}."
    )
    encoder.notes = [*encoder.notes, *notes]
    return encoder


def insist_started(settings: Settings) -> None:
    """Raise ValueError or FileNotFoundError where `started` would, whatever the images are."""
    started(settings, settings.size or 64)


def _exported(flag: str, settings: Settings) -> dict[str, Any]:
    folder = Path(settings.start)
    if not (folder / "encoder.json").is_file():
        raise UserError(
            f"{flag} holds no encoder.json beside an encoder.safetensors: name the folder of a finished run or of an "
            "export, or a file of weights"
        )
    spec = exported(settings.start, joint=not settings.weights)  # of a side of pairs: its layer is filled behind it
    remedy = "write it again by nearfar export"
    insist_digest(folder / "encoder.safetensors", read_json(folder / "encoder.json", remedy).get("sha256"), remedy)
    if spec["name"] != settings.encoder:
        raise UserError(
            f"{flag} has the encoder {spec['name']!r} for {spec['channels']} channels, whose weights do not fit "
            f"{settings.encoder!r} here: leave out --encoder, or give the same"
        )
    return spec


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
